"""Pages link to files of the repository that lie outside of docs/: the site brings these along.

On GitHub `[call.py](../k_diffusing/samplers/call.py)` opens the file. On the site it opens a page that shows it, and a
picture or a notebook lies beside the pages as it is. The pages' text keeps the links that GitHub reads.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

LINK = re.compile(r'(\]\(|src="|href=")(?!\w+:)([^)#"\s]+)')
SHOWN = {".py": "python", ".toml": "toml", ".sh": "sh", ".sbatch": "sh"}


def place(path: str) -> str:
    """Where a file of the repository lies among the pages."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"outside/{path}.md" if Path(path).suffix in SHOWN else f"outside/{path}"


def source(uri: str) -> str:
    """The file of the repository that a page is."""
    return uri.removeprefix("outside/") if uri.startswith("outside/") else f"docs/{uri}"


def linked(uri: str, text: str) -> dict[str, str]:
    """The relative links of a page, each with the file's path in the repository."""
    folder = posixpath.dirname(source(uri))
    return {link: posixpath.normpath(posixpath.join(folder, link)) for _, link in LINK.findall(text)}


def shown(path: Path, name: str) -> str:
    """A page with a source file."""
    code = path.read_text(encoding="utf-8")
    return f"---\nsearch:\n  exclude: true\n---\n\n# {name}\n\n````{SHOWN[path.suffix]}\n{code}````\n"


def on_files(files, config):
    """Adds what pages link to, and what such a page links to."""
    root = Path(config.config_file_path).parent
    waiting = list(files.documentation_pages())
    while waiting:
        page = waiting.pop()
        for path in linked(page.src_uri, page.content_string).values():
            if files.get_file_from_path(place(path)) or not (root / path).is_file():
                continue  # of a link to nowhere mkdocs tells
            if Path(path).suffix in SHOWN:
                file = File.generated(config, place(path), content=shown(root / path, path))
            else:
                file = File.generated(config, place(path), abs_src_path=str(root / path))
                waiting += [file] if file.is_documentation_page() else []
            files.append(file)
    return files


def on_page_markdown(markdown, page, config, files):
    """The links as they are on the site."""
    uri = page.file.src_uri
    places = {link: place(path) for link, path in linked(uri, markdown).items()}

    def there(link):
        known = files.get_file_from_path(places[link[2]])
        if known is None:
            return link[0]
        if link[1].endswith('="'):  # HTML, which mkdocs leaves as it is
            return link[1] + known.url_relative_to(page.file)
        return link[1] + posixpath.relpath(known.src_uri, posixpath.dirname(uri) or ".")

    return LINK.sub(there, markdown)
