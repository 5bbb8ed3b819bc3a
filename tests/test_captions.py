"""Open-Sora's prompt cleaning: recorded pairs, and the same rules as diffusers."""

from __future__ import annotations

import ast
import html
import importlib.util
import json
import random
import re
import sys
import time
import urllib.parse
from collections.abc import Callable
from functools import cache
from pathlib import Path

import bs4
import ftfy
import pytest
from support.requests import make_request

from pavdm_cli.errors import ModelError
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.models.opensora.prompt import append_scores, clean
from pavdm_cli.runtime.install_hints import install_command

RECORDED = json.loads((Path(__file__).parent / "golden" / "text.json").read_text(encoding="utf-8"))
CLEANED = {
    'A cat named "Tom"': 'a cat named "tom"',
    "a <b>bold</b> cat": "a bold cat",
    "salt &amp; pepper": "salt pepper",
    "a &amp;quot;cat&amp;quot; nap": "a cat nap",
    "cat #123, dog #1234": "cat , dog 1234",
    "a 10x20 print": "a print",
    "a 4x4 car": "a car",
    "dawn — dusk – night": "dawn - dusk - night",
    "a . b": "a b",
    ".dotword": "",
    "a cat .dotword": "a cat dotword",
    "<person> walks": "person walks",
    "free shipping of a cat": "of a cat",
    "page 12 of a book": "of a book",
    "free download, click for more": "",
    "this-is-my-cute-cat": "this is my cute cat",
    "call 1234567 or 192.168.1.1": "call or",
    "it&#39;s a ﬁsh": "it's a fish",
    "a%20cat+nap": "a cat nap",
    "two png images": "two",
    "犬が走る": "がる",
}
FRAGMENTS = r"""
a|cat|"Tom"|'|"|“|”|‘|’|`|´|""|''|«x»|„x“|'s|it's|rock 'n' roll|<b>|</b>|<person>|<img src="x.png">|<br/>|<|>|< b >
<!-- c -->|<script>x</script>|<a href="http://x.com">y</a>|&amp;|&quot;|&lt;|&gt;|&#39;|&#x41;|&copy|&amp;amp;|&nbsp;|&
#1|#123|#1234|#12345|123456|1234567|1,000|$5|10x20|4x4|10.5x20cm|3×4|1920x1080|3х4|12:34|1:23 |192.168.1.1|—|–|-|--|_|‑
snake_case|this-is-my-cute-cat|a_b_c_d_e|.|..|...| . |a . b|.dotword|:| : |,|a,b|;|/|\|\n|free shipping|shipping|!|?|€
worldwide free shipping|free download|download free|page 12 of|click for more|click on me|png images|jpg image|image.png
foo.bar.jpeg|https://example.com/foo?x=1|http://|www.foo.com|www:foo|foo.co/bar/|me@foo.com|@nick|@|foo.it|example.org
jc6640|jc6640vc|6640vc231|j2d1a2a|a1b2|h264|mp3|mp4|4k|1080p|猫|犬が|カタカナ|ㇰ|㈱|㌔|䷀|한국|🎈|é|café|İ|ß|©|®|™|•|º|½|¿|§
~|*|+|=|%|%20|%41|%0a|%09|%e2%80%a8|%c2%a0|%e3%80%80|a+b|(|)|[|]|{|}|vvÃ©|schÃ¶n|â€œ|â€™|%ef%bb%bf|%5cn|%7c"""


@cache
def diffusers_cleaning() -> Callable[[str], str]:
    """The method of diffusers' PixArt pipeline, out of its source: importing the pipeline takes many seconds."""
    package = importlib.util.find_spec("diffusers")
    assert package
    assert package.origin
    path = Path(package.origin).parent / "pipelines" / "pixart_alpha" / "pipeline_pixart_alpha.py"
    pipe = next(node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef))
    names = [
        next(node for node in pipe.body if start in ast.unparse(node)) for start in ("bad_punct_regex =", "def _clean")
    ]
    pipe.bases, pipe.body = [], names
    scope = {"re": re, "html": html, "ul": urllib.parse, "ftfy": ftfy, "BeautifulSoup": bs4.BeautifulSoup}
    exec(compile(ast.Module([pipe], []), str(path), "exec"), scope)
    cleaner = scope[pipe.name]()._clean_caption
    return lambda text: cleaner(cleaner(text))


def hostile(draw: random.Random) -> str:
    """A caption of fragments that the rules are about, with or without space between them."""
    fragments = re.split(r"[|\n]", FRAGMENTS.strip())
    return "".join(draw.choice(fragments) + draw.choice(["", " ", " ", "  "]) for _ in range(draw.randint(1, 9)))


@pytest.mark.filterwarnings("ignore::bs4.MarkupResemblesLocatorWarning")  # of diffusers; ours shows none
def test_two_thousand_hostile_captions_are_cleaned_as_by_diffusers():
    draw = random.Random(0)
    captions = [hostile(draw) for _ in range(2000)]
    assert len({*captions}) > 1900
    different = [text for text in captions if clean(text) != diffusers_cleaning()(text)]
    assert different == []


@pytest.mark.parametrize("text", CLEANED)
def test_a_caption_of_every_rule_is_cleaned_as_released(text):
    assert clean(text) == CLEANED[text]


@pytest.mark.parametrize("pair", RECORDED["text_preprocessing"], ids=lambda pair: pair["input"][:20])
def test_a_prompt_is_cleaned_as_recorded(pair):
    assert clean(pair["input"]) == pair["clean"]


@pytest.mark.parametrize("case", RECORDED["append_score"], ids=lambda case: case["out"])
def test_scores_are_added_as_recorded(case):
    assert append_scores(case["prompt"], case["aes"], case["flow"], case["camera_motion"] or "") == case["out"]


@pytest.mark.parametrize(
    "prompt",
    [
        "a 1990s street in new york, 1080p, at 5pm",
        "three friends walk along the sea; it rains.",
        "a train passes at 1:23, doors close",
        "an old man's well-worn coat",
        "camera motion: pan left. a crowd of 1,000 people",
    ],
)
def test_plain_words_are_left_as_they_are(prompt):
    assert clean(prompt) == prompt


def test_what_the_first_round_uncovers_goes_in_the_second():
    assert clean("hello %2540bob") == "hello"


@pytest.mark.parametrize(
    "prompt",
    ["", "   ", "#", "猫", "http://x.com", "-", "%00%ff", "\x00", "<" * 2000, "<![foo", "<!a[", "&#xd800;", "<b>" * 500]
    + [f"{start}&#{'9' * 5000};" for start in ("", "<b>", "&amp;")],
)
def test_whatever_is_typed_is_cleaned_to_text(prompt):
    assert isinstance(clean(prompt).encode(), bytes)


@pytest.mark.parametrize("part", ["<a ", "a.", "1.", ". "])
def test_a_long_prompt_takes_time_in_proportion_to_its_length(part):
    prompt, start = part * (30_000 // len(part)), time.process_time()
    clean(prompt)
    assert time.process_time() - start < 4  # the first takes half a minute where the time grows with the square


@pytest.mark.parametrize(("package", "module"), [("ftfy", "ftfy"), ("beautifulsoup4", "bs4")])
def test_without_what_cleans_prompts_one_line_says_what_to_install(package, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModelError, match=f"^Open-Sora needs {package}$") as excinfo:
        resolve(make_request("a cat", model="opensora-v1.2"))
    assert excinfo.value.hint == install_command("opensora")
