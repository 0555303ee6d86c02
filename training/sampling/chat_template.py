"""Rendering a chat template as transformers does, and counting the tokens of conversations, apart from everything else.

A chat template is a program and a tokenizer's expressions can be made to run for hours, so both are done in a process of
their own with a limit on time and memory: `python -m training.sampling.chat_template` reads one JSON object and prints one.
No torch and no transformers: it answers in a moment.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SECONDS, MEMORY_BYTES = 20, 4_000_000_000
ROOT = Path(__file__).resolve().parents[2]
ASKED = {"role": "user", "content": "Where is my parcel?"}
ANSWERED = {"role": "assistant", "content": "It left our warehouse this morning."}
TOLD = {"role": "system", "content": "Answer briefly."}

Message = dict[str, str]


def try_template(template: str, special: dict[str, str]) -> dict[str, Any]:
    """`{"problem", "takes_system"}` of a template: what is wrong with it in words, and whether it knows system messages.

    `special` are the tokens that it may name, such as `bos_token`.
    """
    return _ask({"template": template, "special": special})


def count_tokens(
    template: str, special: dict[str, str], tokenizer_file: Path, conversations: Sequence[Sequence[Message]]
) -> list[int | None] | None:
    """Tokens of each conversation as a model reads it; of one that ends with a person, the start of the answer included.

    None for a conversation that the template refuses. None for all where no library here can count.
    """
    answer = _ask({"template": template, "special": special, "tokenizer": str(tokenizer_file), "conversations": conversations})
    return answer.get("tokens")


def _ask(question: dict[str, Any]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "training.sampling.chat_template"], cwd=ROOT, input=json.dumps(question),
            env={"PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"},
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"problem": f"Its chat template or tokenizer took longer than {SECONDS} s and was stopped"}
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return {"problem": f"Its chat template or tokenizer can't be tried: {said[:300]}"}
    return json.loads(done.stdout)


# --- in the process of its own ------------------------------------------------------------------
def main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    question = json.load(sys.stdin)
    try:
        import jinja2  # noqa: F401
    except ImportError:
        print(json.dumps({"problem": "", "takes_system": True, "tokens": None}))
        return
    special = question["special"]
    if "conversations" in question:
        print(json.dumps({"tokens": _count(question["template"], special, question["tokenizer"], question["conversations"])}))
    else:
        print(json.dumps(tried(question["template"], special)))


def tried(source: str, special: dict[str, str]) -> dict[str, Any]:
    """As `try_template`, in this process."""
    try:
        template = compiled(source)
        asked = template.render(messages=[ASKED], add_generation_prompt=True, **special)
        whole = template.render(messages=[ASKED, ANSWERED, ASKED, ANSWERED], add_generation_prompt=False, **special)
    except Exception as error:  # whatever the template does wrong, a person is to read it
        return {"problem": f"Its chat template is broken: {' '.join(str(error).split())[:300]}", "takes_system": False}
    if ASKED["content"] not in asked:
        return {"problem": "Its chat template leaves out what the person said", "takes_system": False}
    if ANSWERED["content"] not in whole:
        return {"problem": "Its chat template leaves out what the assistant said", "takes_system": False}
    try:
        takes_system = TOLD["content"] in template.render(messages=[TOLD, ASKED], add_generation_prompt=True, **special)
    except Exception:
        takes_system = False
    return {"problem": "", "takes_system": takes_system}


def _count(source: str, special: dict[str, str], path: str, conversations: list[list[Message]]) -> list[int | None] | None:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    if not Path(path).is_file():
        return None
    template, tokenizer = compiled(source), Tokenizer.from_file(path)
    tokenizer.no_truncation()
    counts: list[int | None] = []
    for messages in conversations:
        try:
            text = template.render(messages=messages, add_generation_prompt=messages[-1]["role"] != "assistant", **special)
        except Exception:
            counts.append(None)
        else:
            counts.append(len(tokenizer.encode(text, add_special_tokens=False).ids))
    return counts


def compiled(source: str) -> Any:
    """The template as transformers 5 makes it: sandboxed, lines trimmed, `break` and `continue`, the tag `generation`.

    Raises jinja2.TemplateError where it doesn't parse.
    """
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what the assistant says; it renders as what it holds."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(["name:endgeneration"], drop_needle=True), lineno=line)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=options.get("ensure_ascii", False), indent=options.get("indent"))

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: "2026-01-01"  # as long as any other day
    return environment.from_string(source)


if __name__ == "__main__":
    main()
