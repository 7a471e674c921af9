"""`tutelage completion`: a static script for bash, zsh or fish, generated from the parser."""

import argparse
import shlex

from tutelage.errors import NAME


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script to source. It completes commands, options and, elsewhere, files."""
    if shell == "fish":
        return _fish(parser)
    head = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return head + _bash(parser)


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (choices,) = (a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(choices)


def _options(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Long options and their help."""
    return {
        name: action.help or ""
        for action in parser._actions
        for name in action.option_strings
        if name.startswith("--")
    }


def _words(parser: argparse.ArgumentParser) -> list[str]:
    """What may follow a command: its options, and the choices of its arguments."""
    choices = [str(c) for a in parser._actions if not a.option_strings for c in a.choices or ()]
    return [*choices, *_options(parser)]


def _bash(parser: argparse.ArgumentParser) -> str:
    commands = _commands(parser)
    cases = "\n".join(
        f"    {name}) words={shlex.quote(' '.join(_words(one)))} ;;"
        for name, one in commands.items()
    )
    first = shlex.quote(" ".join([*commands, *_options(parser)]))
    return f"""\
_{NAME}() {{
  local words=''
  if [ "$COMP_CWORD" -eq 1 ]; then
    words={first}
  else
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _{NAME} {NAME}
"""


def _fish(parser: argparse.ArgumentParser) -> str:
    lines = []
    for name, one in _commands(parser).items():
        about = shlex.quote(one.description or "")
        lines.append(f"complete -c {NAME} -n __fish_use_subcommand -f -a {name} -d {about}")
        here = f"complete -c {NAME} -n '__fish_seen_subcommand_from {name}'"
        for option, text in _options(one).items():
            lines.append(f"{here} -l {option[2:]} -d {shlex.quote(text)}")
        choices = [word for word in _words(one) if not word.startswith("-")]
        if choices:
            lines.append(f"{here} -f -a {shlex.quote(' '.join(choices))}")
    return "\n".join(lines) + "\n"
