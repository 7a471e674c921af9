"""What WebShop wants from the machine."""

from collections.abc import Iterator, Mapping
from typing import Final

from tutelage.envs.requirements import Need, file, official, package

GET: Final = (
    "git clone https://github.com/princeton-nlp/WebShop and fetch what its setup.sh names (`Data` "
    "in docs/environments/webshop.md)"
)


def needs(options: Mapping[str, object]) -> Iterator[Need]:
    """Nothing, unless the original's own files are to be played or its tagger is to be used."""
    if options.get("data"):
        yield file("data", options["data"], GET)
    else:
        yield official("data", GET)
    tagged = options.get("nouns") == "spacy"
    use = 'for nouns = "spacy", as WebShop compares titles'
    yield package("spacy", "nouns", wanted=tagged, use=use)
    get = "python -m spacy download en_core_web_sm"
    yield package("en-core-web-sm", get=get, wanted=tagged, use=use)
