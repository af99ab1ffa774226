"""`leafdb completion`: the lines that teach a shell to complete `leafdb`.

They know nothing themselves: at each key press they hand the line up to the cursor to `leafdb completion words`, which
answers from the command tree of the version that is installed. Where it has nothing to say, a file's name may be due.
"""

from __future__ import annotations

from typing import Annotated, Final

import typer

from leafdb_cli.session import session_of

app = typer.Typer(help="Completion for bash, zsh and fish.", no_args_is_help=True, rich_markup_mode=None)

BASH: Final = """\
# leafdb for bash: eval "$(leafdb completion bash)" in ~/.bashrc
_leafdb() {
    local IFS=$'\\n'
    COMPREPLY=($(leafdb completion words -- "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
}
complete -o default -F _leafdb leafdb
"""
ZSH: Final = """\
#compdef leafdb
# leafdb for zsh: eval "$(leafdb completion zsh)" in ~/.zshrc, behind compinit
_leafdb() {
    local -a found
    found=(${(f)"$(leafdb completion words -- "${(j: :)words[1,CURRENT]}" 2>/dev/null)"})
    if (( ${#found} )); then compadd -a found; else _files; fi
}
compdef _leafdb leafdb
"""
FISH: Final = """\
# leafdb for fish: leafdb completion fish > ~/.config/fish/completions/leafdb.fish
function __leafdb_words
    set -l line (commandline -cp)
    leafdb completion words -- "$line" 2>/dev/null
end
complete -c leafdb -a '(__leafdb_words)'
"""


@app.command()
def bash(ctx: typer.Context) -> None:
    """Print the lines for bash.

    Example: leafdb completion bash >> ~/.bashrc
    """
    session_of(ctx).output.data(BASH.encode())


@app.command()
def zsh(ctx: typer.Context) -> None:
    """Print the lines for zsh.

    Example: leafdb completion zsh >> ~/.zshrc
    """
    session_of(ctx).output.data(ZSH.encode())


@app.command()
def fish(ctx: typer.Context) -> None:
    """Print the lines for fish.

    Example: leafdb completion fish > ~/.config/fish/completions/leafdb.fish
    """
    session_of(ctx).output.data(FISH.encode())


@app.command(hidden=True)
def words(
    ctx: typer.Context,
    line: Annotated[str, typer.Argument(metavar="LINE", help="Up to the cursor; behind a bare --.")] = "",
) -> None:
    """Print what may stand where the line ends, one word a line. Names too, when a node answers at once.

    Example: leafdb completion words -- "leafdb kv "
    """
    from leafdb_cli.completing import candidates, live_names, split_line

    found = candidates(split_line(line), live_names())
    session_of(ctx).output.data("".join(f"{word}\n" for word in found).encode())
