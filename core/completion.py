"""Tab completion in bash: `eval "$(python -m core.run -sc install=bash)"`.

Hydra's own script knows `python file.py` and the name of a script, not `python -m core.run` and not a subcommand, so
that part is ours; what can follow is still Hydra's answer. One script serves core.evaluate too.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import MutableMapping, Sequence

_FLAGS = ("-sc", "--shell-completion", "--shell_completion")
_COMMAND = re.compile(r"^.*?(-m\s+core\.(run|evaluate)|accordant\s+(run|evaluate))\s")

SCRIPT = """\
_accordant_completion()
{{
    case "$COMP_LINE" in
        *"-m core.run "*|*"accordant run "*) local module=core.run ;;
        *"-m core.evaluate "*|*"accordant evaluate "*) local module=core.evaluate ;;
        *) return ;;
    esac
    local choices word="${{COMP_LINE##* }}"
    choices=$(COMP_LINE="$COMP_LINE" {python} -m $module -sc query=bash 2> /dev/null)
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
}}
COMP_WORDBREAKS=${{COMP_WORDBREAKS//=}}
complete -o nospace -o default -F _accordant_completion python python3 accordant
"""


def answer(arguments: Sequence[str], environment: MutableMapping[str, str] = os.environ) -> bool:
    """Prints the script where it is asked for (True). A query is put into the words that Hydra understands (False)."""
    if not any(flag in arguments for flag in _FLAGS):
        return False
    if "install=bash" in arguments:
        print(SCRIPT.format(python=shlex.quote(sys.executable)))
        return True
    if "uninstall=bash" in arguments:
        print("complete -r python python3 accordant; unset -f _accordant_completion")
        return True
    line = environment.get("COMP_LINE")
    if line is not None:
        environment["COMP_LINE"] = _COMMAND.sub("accordant ", line)
    return False
