"""Writes golden.json: conversations rendered by the templates here, by jinja2 as `transformers` sets it up.

    pip install transformers jinja2; python make.py [FOLDER OF TEMPLATES] [OUTPUT]
"""

import datetime
import glob
import json
import os
import sys

from transformers.utils import chat_template_utils

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = 1_735_790_645  # 2 January 2025, 04:04:05 UTC


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None)


chat_template_utils.datetime = Clock

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather at a place, \"now\" <or> later & it's é",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "City\nor town"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "default": 1},
                "zoom": {"type": "number", "minimum": 0.5, "maximum": 1e20},
            },
            "required": ["place"],
        },
    },
}
ADD = {
    "type": "function",
    "function": {"name": "add", "description": "", "parameters": {"type": "object", "properties": {}, "required": []}},
}


def call(name, arguments, id="call12345"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


S, U, A = "system", "user", "assistant"


def m(role, content, **more):
    return {"role": role, "content": content, **more}


TALK = [m(U, "Hi there"), m(A, "Hello!  How are you?"), m(U, "  I am fine.\n")]
CONVERSATIONS = {
    "one": [m(U, "What is 1 + 1?")],
    "talk": TALK,
    "system": [m(S, " Be brief. "), *TALK],
    "odd": [m(S, "<|im_end|> {{ x }} {% y %}"), m(U, "é\t\"quoted\" 'single' \\ & <b>\r\n🙂 \u2028"), m(A, ""), m(U, "\x1f x \x1c")],
    "thought": [m(U, "Think."), m(A, "<think>\nhm\n</think>\n\nDone."), m(U, "More.")],
    "calls": [
        m(U, "Weather in Paris?"),
        m(A, "", tool_calls=[call("get_weather", {"place": "Paris", "days": 2, "zoom": 1.0})]),
        m("tool", '{"t": 21.5}', name="get_weather", tool_call_id="call12345"),
        m(A, "It is 21.5."),
        m(U, "Thanks"),
    ],
    "two calls": [
        m(S, "Use tools."),
        m(U, "Add and weather"),
        m(A, None, tool_calls=[call("add", {"a": [1, 2.5, None], "b": {"c": True}}, "abcdefgh1"), call("get_weather", {"place": "Łódź"}, "abcdefgh2")]),
        m("tool", "3.5", name="add", tool_call_id="abcdefgh1"),
        m("tool", {"t": 1}, name="get_weather", tool_call_id="abcdefgh2"),
    ],
    "parts": [m(U, [{"type": "text", "text": "Look: "}, {"type": "image"}, {"type": "text", "text": "what?"}])],
    "roles": [m(A, "I begin"), m(U, "twice"), m(U, "in a row"), m("custom", "?")],
    "none": [],
}


def cases():
    for name, messages in CONVERSATIONS.items():
        for prompt in (False, True):
            yield name, {"messages": messages, "add_generation_prompt": prompt}
        yield name, {"messages": messages, "add_generation_prompt": True, "tools": [WEATHER, ADD]}
    yield "extra", {
        "messages": CONVERSATIONS["system"],
        "add_generation_prompt": True,
        "tools": [WEATHER],
        "extra": {"date_string": "1 Jan 2020", "tools_in_user_message": False, "enable_thinking": False, "n": 3},
    }
    yield "no tools", {"messages": TALK, "tools": []}


SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def render(source, case):
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            conversations=[json.loads(json.dumps(case["messages"]))],
            tools=case.get("tools"),
            chat_template=source,
            add_generation_prompt=case.get("add_generation_prompt", False),
            **{**SPECIAL, **case.get("extra", {})},
        )
        return {"text": rendered[0]}
    except Exception as e:
        return {"error": str(e)}


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else HERE
    output = sys.argv[2] if len(sys.argv) > 2 else os.path.join(HERE, "golden.json")
    out = {"now": NOW, "special": SPECIAL, "cases": {name: case for name, case in numbered()}, "templates": {}}
    for path in sorted(glob.glob(os.path.join(folder, "*.jinja"))):
        with open(path, newline="") as file:
            source = file.read()
        results = {name: render(source, case) for name, case in numbered()}
        out["templates"][os.path.basename(path)] = {"source": source, "results": results}
    with open(output, "w") as file:
        json.dump(out, file, indent=0, ensure_ascii=False)


def numbered():
    for n, (name, case) in enumerate(cases()):
        yield f"{n} {name}", case


main()
