"""A page as a browser would find it."""

import re
from html.parser import HTMLParser

ADDRESSED = {"src", "srcset", "href", "action", "formaction", "poster", "data", "background", "ping"}
HOSTILE = [
    """</title></script><!--<script>alert(1)</script><img src=x onerror='alert("$2")'>""",
    """" onmouseover="alert(1)" x=' autofocus onfocus='alert(1)""",
    "</ScRiPt ></style><link rel=stylesheet href=https://example.org/a.css>",
    "one line\u2028another\u2029a third\x85 {{ 7 * 7 }} {% raw %} {# #} ${alert(1)} \\u003c &lt; ]]>",
]


class Elements(HTMLParser):
    """found: (tag, attributes) of every element; texts: (the innermost element's tag, text)."""

    def __init__(self, text: str):
        super().__init__()
        self.found, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append((self.found[-1][0] if self.found else None, data))

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]

    def slider(self):
        """How many there are of what the slider's script looks for."""
        classes = [name for _, attributes in self.found for name in (attributes.get("class") or "").split()]
        return [classes.count(name) for name in ("compared", "wipe", "names", "flip")]

    def tags(self):
        return [tag for tag, _ in self.found]

    def handlers(self):
        """Attributes that would run a script."""
        return [name for _, attributes in self.found for name in attributes if name.startswith("on")]

    def addresses(self):
        """Whatever is fetched or followed and is not inside the page."""
        named = [
            value for _, attributes in self.found for name, value in attributes.items() if name in ADDRESSED and value
        ]
        styles = "".join(text for tag, text in self.texts if tag == "style")
        return [one for one in named if not one.startswith("data:")] + re.findall(r"url\([^)]*|@import\S*", styles)
