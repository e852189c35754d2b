"""What the cards of the samplers show: a step in formulas, and where k_diffusion's own methods come from.

A step goes from sigma s to t. D is the denoised estimate at x and s, e = (x - D) / s; D', e' and D'', e'' are those of
the step's further stages, D_1, e_1 and D_2, e_2 those of the steps before. h = log(s/t), h_1 that of the step before.
z is unit noise. down and up split t for the noise: up = eta t sqrt(1 - t^2/s^2), t at most, down = sqrt(t^2 - up^2).
"""

KARRAS, DPM, DPMPP = (
    "Karras et al. 2022, arXiv 2206.00364",
    "Lu et al. 2022, arXiv 2206.00927",
    "Lu et al. 2022, arXiv 2211.01095",
)
SOURCES = {
    "euler": f"{KARRAS}, algorithm 2",
    "euler_ancestral": "Song et al. 2020, arXiv 2010.02502",
    "heun": f"{KARRAS}, algorithm 2",
    "dpm_2": f"{DPM}; {KARRAS}, algorithm 2",
    "dpm_2_ancestral": DPM,
    "lms": "Adams and Bashforth's method",
    "dpm_fast": DPM,
    "dpm_adaptive": DPM,
    "dpmpp_2s_ancestral": DPMPP,
    "dpmpp_sde": DPMPP,
    "dpmpp_2m": DPMPP,
    "dpmpp_2m_sde": DPMPP,
    "dpmpp_3m_sde": DPMPP,
}

_GUIDED = "D_g guided, D_u without the prompt: the step of {} by D_u, and D_g − D_u on top"
FORMULAS = {
    # k_diffusion's own
    "euler": "x ← x + (t − s) e",
    "euler_ancestral": "x ← D + down e + up z",
    "heun": "x' = x + (t − s) e\nx ← x + (t − s) (e + e') / 2",
    "dpm_2": "m = √(s t)\nx' = x + (m − s) e\nx ← x + (t − s) e'",
    "dpm_2_ancestral": "m = √(s down)\nx' = x + (m − s) e\nx ← x + (down − s) e' + up z",
    "lms": "x ← x + C₀ e + C₁ e₁ + C₂ e₂ + C₃ e₃\nC_j = ∫ₛᵗ l_j(σ) dσ, l_j through the last sigmas",
    "dpm_fast": "e', e'' at 1/3 and 2/3 of the step in log σ\nx ← x − t (eʰ − 1) e − 3/2 t ((eʰ − 1)/h − 1) (e'' − e)",
    "dpm_adaptive": "the step of dpm_fast; h such that it differs from\nthe step of order 2 by rtol and atol",
    "dpmpp_2s_ancestral": "h = log(s / down)\n"
    "x' = e^(−h/2) x + (1 − e^(−h/2)) D\nx ← e^(−h) x + (1 − e^(−h)) D' + up z",
    "dpmpp_sde": "d, u: down and up from s to √(s t)\nx' = (d/s) x + (1 − d/s) D + u z'\n"
    "x ← (down/s) x + (1 − down/s) D' + up z",
    "dpmpp_2m": "r = h₁ / h\nx ← (t/s) x + (1 − t/s) ((1 + 1/(2r)) D − 1/(2r) D₁)",
    "dpmpp_2m_sde": "k = 1 + η, r = h₁ / h\nx ← e^(−kh) x + (1 − e^(−kh)) (D + (D − D₁) / (2r))\n"
    "    + t √(1 − e^(−2ηh)) z",
    "dpmpp_3m_sde": "k = 1 + η, φ₂ = 1 − (1 − e^(−kh)) / (kh), φ₃ = φ₂ / (kh) − 1/2\n"
    "x ← e^(−kh) x + (1 − e^(−kh)) D + φ₂ d₁ − φ₃ d₂\n    + t √(1 − e^(−2ηh)) z\n"
    "d₁, d₂: first and second divided difference of D, D₁, D₂",
    # multistep
    "res_multistep": "x ← e^(−h) x + (1 − e^(−h)) D\n    + (h − 1 + e^(−h)) (D − D₁) / h₁",
    "res_multistep_ancestral": "x ← (t/s)^k x + b₀ D + b₁ D₁ + up z\nk = log(s / down) / h, D a line in log σ",
    "res_3m": "x ← (t/s) x + b₀ D + b₁ D₁ + b₂ D₂\nD a parabola in log σ",
    "dpmpp_2m_sde_heun": "k = 1 + η\nx ← e^(−kh) x + (1 − e^(−kh)) D\n"
    "    + (1 − (1 − e^(−kh)) / (kh)) (D − D₁) h / h₁\n    + t √(1 − e^(−2ηh)) z",
    "dpmpp_3m_sde_exact": "dpmpp_3m_sde with − 2 φ₃ d₂ in place of − φ₃ d₂",
    "uni_pc": "x' = (t/s) x + b₀ D + b₁ D₁ + b₂ D₂\nx ← the same with D' at x', t among the estimates",
    "uni_pc_bh2": "uni_pc; with two estimates 1 − e^(−h) in place of h",
    "sa_solver": "k = 1 + τ²\nx' = (t/s)^k x + Σ b_j D_j + t √(1 − (t/s)^(2τ²)) z\n"
    "x ← the same with D' at x', t among the estimates",
    "sa_solver_pece": "sa_solver; D anew where x' was corrected",
    "deis": "x ← x + C₀ e + C₁ e₁ + C₂ e₂\nC_j = ∫ₛᵗ l_j(θ(σ)) dσ, θ the time of the VP process",
    "ipndm": "x ← x + (t − s) (55 e − 59 e₁ + 37 e₂ − 9 e₃) / 24",
    "ipndm_v": "x ← x + C₀ e + C₁ e₁ + C₂ e₂ + C₃ e₃\nC_j = ∫ₛᵗ l_j(σ) dσ, l_j through the last sigmas",
    "gradient_estimation": "x ← x + (t − s) (e + (γ − 1) (e − e₁)), γ = 2",
    # singlestep
    "res_2s": "ψ₁ = 1 − e^(−h), ψ₂ = 1 − ψ₁ / h\nx' = e^(−h/2) x + (1 − e^(−h/2)) D\n"
    "x ← e^(−h) x + (ψ₁ − 2 ψ₂) D + 2 ψ₂ D'",
    "res_3s": "D', D'' at c₂ and c₃ of the step in log σ\nx ← e^(−h) x + a₀ D + a₁ D' + a₂ D''\n"
    "a₀ + a₁ + a₂ = 1 − e^(−h)",
    "seeds_2": "k = (1 + η) h, D' half-way in log σ, noise and all\n"
    "x ← e^(−k) x + (1 − e^(−k)) D' + t √(1 − e^(−2ηh)) z",
    "seeds_3": "k = (1 + η) h, ψ₁ = 1 − e^(−k), ψ₂ = 1 − ψ₁ / k, D'' at 2/3\n"
    "x ← e^(−k) x + (ψ₁ − 3/2 ψ₂) D + 3/2 ψ₂ D''\n    + t √(1 − e^(−2ηh)) z",
    "exp_heun_2_x0": "ψ₁ = 1 − e^(−h), ψ₂ = 1 − ψ₁ / h\nx' = e^(−h) x + ψ₁ D\nx ← e^(−h) x + (ψ₁ − ψ₂) D + ψ₂ D'",
    "exp_heun_2_x0_sde": "exp_heun_2_x0 with (1 + η) h for h in the weights,\nand + t √(1 − e^(−2ηh)) z",
    "dpmpp_2s": "x' = e^(−h/2) x + (1 − e^(−h/2)) D\nx ← e^(−h) x + (1 − e^(−h)) D'",
    "dpmpp_3s": "seeds_3 with η = 0",
    # ER-SDE, ancestral, restart
    "er_sde": "q = φ(t) / φ(s)\n"
    "x ← q x + (1 − q) D + A D' + B D'' + √(t² − q² s²) z\nD', D'' the derivatives of D along σ",
    "ddim": "x ← D + down e + up z, η = 0",
    "euler_ancestral_rf": "x ← D + down e + √(t² − down²) z\ndown = u / (1 − u), u = t' (1 + η (t'/s' − 1))\n"
    "t', s': the times t / (1 + t), s / (1 + s)",
    "restart": "heun; near σ = low once more from high:\nx ← x + √(high² − low²) z, and heun down",
    # few steps
    "lcm": "x ← D + t z",
    "tcd": "x ← D + r e + √(t² − r²) z\nr the σ at 1 − η of the next timestep",
    # Runge-Kutta
    "midpoint": "m = (s + t) / 2\nx' = x + (m − s) e\nx ← x + (t − s) e'",
    "ralston": "x' = x + 2/3 (t − s) e\nx ← x + (t − s) (e + 3 e') / 4",
    "ralston_3": "x' = x + 1/2 (t − s) e\nx'' = x + 3/4 (t − s) e'\nx ← x + (t − s) (2 e + 3 e' + 4 e'') / 9",
    "rk4": "x' = x + 1/2 (t − s) e\nx'' = x + 1/2 (t − s) e'\nx''' = x + (t − s) e''\n"
    "x ← x + (t − s) (e + 2 e' + 2 e'' + e''') / 6",
    "heunpp2": "e', e'' at t and the σ after it, t₂; s₀ the first σ\nw' = t / (3 s₀), w'' = t₂ / (3 s₀)\n"
    "x ← x + (t − s) ((1 − w' − w'') e + w' e' + w'' e'')",
    # CFG++
    "euler_cfg_pp": "x ← D_g + (t/s) (x − D_u)",
    "euler_ancestral_cfg_pp": _GUIDED.format("euler_ancestral"),
    "dpmpp_2m_cfg_pp": _GUIDED.format("dpmpp_2m"),
    "dpmpp_2s_ancestral_cfg_pp": _GUIDED.format("dpmpp_2s_ancestral"),
    "res_multistep_cfg_pp": _GUIDED.format("res_multistep"),
    "res_multistep_ancestral_cfg_pp": _GUIDED.format("res_multistep_ancestral"),
    "gradient_estimation_cfg_pp": _GUIDED.format("gradient_estimation"),
    "rectified_cfg_pp": "x' = x + (t − s)/2 e_c\nx ← x + (t − s) (e_c + α (e_c' − e_u'))",
}
