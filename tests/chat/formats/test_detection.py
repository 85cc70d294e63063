"""Which format a template is written for. The excerpts hold what tells; real templates of the models named have it."""

from __future__ import annotations

import pytest

from server.chat.formats import FALLBACK, FORMATS, detect, named
from server.errors import BrimError

EXCERPTS = {
    "Hermes 2 and 3, Qwen 2.5, Qwen 3, QwQ, MiMo, Bielik": (
        "{{- '<tool_call>\\n{\"name\": \"' + call.name + '\", \"arguments\": ' }}{{- '}\\n</tool_call>' }}",
        "hermes",
    ),
    "Reka Edge": (
        '{{ "<tool_call>\\n{\\"name\\": \\"" ~ n ~ "\\", \\"arguments\\": " ~ a ~ "}\\n</tool_call>" }}',
        "hermes",
    ),
    "Granite 4.0 and 4.1": (
        '<|start_of_role|>{{ \'<tool_call>\\n{"name": "x", "arguments": {}}\\n</tool_call>\' }}',
        "hermes",
    ),
    "Qwen3-Coder, Qwen 3.5, Nemotron 3 Nano, Step 3.5": (
        "{{- '\\n<tool_call>\\n<function=' + call.name + '>\\n' }}{{- '<parameter=' + key + '>\\n' }}</tool_call>",
        "qwen3-coder",
    ),
    "Llama 3.1 and 3.3": (
        "<|start_header_id|>{{ 'Environment: ipython' }}<|python_tag|>{{- '\"parameters\": ' }}{{ a | tojson }}",
        "llama",
    ),
    "Llama 3.2": ("<|start_header_id|>ipython<|end_header_id|>{{- '\"parameters\": ' }}", "llama"),
    "Llama 3.2 and 4, pythonic": (
        "<|start_header_id|>ipython You put it as [func_name1(params_name1=value1)]",
        "pythonic",
    ),
    "Mistral Nemo": ("{{- '[TOOL_CALLS][' }}{% for call in message.tool_calls %}", "mistral-nemo"),
    "Mistral Small 3.2, Devstral, Ministral 3": ("{{- '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}", "mistral"),
    "Functionary 3.1": (
        "<|python_tag|>{{ '<function=' + name + '>' + a | tojson + '</function>' }}",
        "functionary-v3.1",
    ),
    "Functionary 3.2": (
        "{{ 'Respond:\\n>>>${recipient}\\n${content}' }}{{ '>>>all\\n' + content }}",
        "functionary-v3.2",
    ),
    "DeepSeek R1, its distilled models, V3": (
        "{{ '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + type + '<｜tool▁sep｜>' + name + '\\n```json\\n' }}",
        "deepseek-r1",
    ),
    "DeepSeek V3.1": (
        "{{ '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>' + a }}",
        "deepseek-v3.1",
    ),
    "gpt-oss": ("{{- '<|start|>assistant<|channel|>final<|message|>' + message.content }}", "harmony"),
    "Gemma 2 and 3": ("{{ '<start_of_turn>' + role + '\\n' + content | trim + '<end_of_turn>\\n' }}", "gemma"),
    "FunctionGemma": ("<start_of_turn>{{ '<start_function_call>call:' + name }}<end_function_call>", "functiongemma"),
    "Gemma 4": ("{{- '<|tool_call>call:' + name + '{' }}{{- '}<tool_call|>' }}", "gemma4"),
    "Granite 3": ("<|start_of_role|>{{ 'respond only with <|tool_call|> followed by a JSON list' }}", "granite"),
    "Phi-4-mini": ("{{ message.content + '<|tool|>' + message.tools + '<|/tool|><|end|>' }}", "phi"),
    "Command R+": (
        "<|START_OF_TURN_TOKEN|>{{- '\\nAction:\\n```json\\n[\\n' }}",
        "command-r",
    ),
    "Command R7B, Command A": ("Action: write <|START_ACTION|> ... <|END_ACTION|>", "command-r7b"),
    "DeepSeek V3.2": ("{% set mark = '｜DSML｜' %}{{ '<' + mark + 'function_calls>\\n' }}", "deepseek-v3.2"),
    "DeepSeek V4": ("{% set mark = '｜DSML｜' %}{{ '<' + mark + 'tool_calls>\\n' }}", "deepseek-v4"),
    "Kimi K2": ("{{ '<|tool_call_begin|>functions.' + name + ':0<|tool_call_argument_begin|>' + a }}", "kimi-k2"),
    "MiniMax M1": ("{{ '<beginning_of_sentence>ai name=assistant\\n<tool_calls>\\n' + calls }}", "minimax-m1"),
    "MiniMax M2": (
        '{% set open = \'<minimax:tool_call>\' %}<invoke name="{{ n }}"><parameter name="{{ k }}">',
        "minimax-m2",
    ),
    "Hy3": ("{% set s = ':opensource' %}{{ '<tool_sep{}>'.format(s) + '<arg_key{}>'.format(s) }}", "hy3"),
    "Solar Open": ("{{ '<|tool_calls|><|tool_call:begin|>' + id + '<|tool_call:args|>' + a }}", "solar-open"),
    "Seed-OSS": (
        "{% set open = '<seed:tool_call>' %}{{ '<function=' + n + '>' }}{{ '<parameter=' + k + '>' + v }}",
        "seed-oss",
    ),
    "GLM 4.5 to 4.7, Ling 3, Laguna, Spark": (
        "<tool_call>{{ name }}\\n<arg_key>{{ k }}</arg_key><arg_value>{{ v }}</arg_value></tool_call>",
        "glm",
    ),
    "LFM2": ("<|im_start|>system\n{{ 'List of tools: <|tool_list_start|>[' + t + ']<|tool_list_end|>' }}", "lfm"),
    "LFM2.5": ("<|im_start|>system\n{{ 'List of tools: [' + tools | join(', ') + ']' }}", "lfm"),
    "Nemotron Nano 2, Llama Nemotron": ("{{- '<TOOLCALL>[' }}{{- ']</TOOLCALL>' }}", "nemotron"),
    "Apertus": ("{{ '<|tools_prefix|>[' }}{{- '{\"' + name + '\": ' + a }}{{ ']<|tools_suffix|>' }}", "apertus"),
    "Apriel 1.5 and 1.6": ("a list: <tool_calls>[{...}]</tool_calls>{{ '[BEGIN FINAL RESPONSE]' }}", "apriel"),
    "MiniCPM5": (
        "{{- '<function name=\"' ~ f ~ '\">' }}{{- '<param name=\"' ~ k ~ '\">' }}{{- '<![CDATA[' + v + ']]>' }}",
        "minicpm",
    ),
    "GigaChat 3.1": ('<|role_sep|>{{ \'<|function_call|>{"name": "\' ~ name ~ \'", "arguments": \' }}', "gigachat"),
    "no tools": ("{% for m in messages %}<|im_start|>{{ m.role }}{% endfor %}", FALLBACK.name),
}


@pytest.mark.parametrize(("template", "name"), EXCERPTS.values(), ids=list(EXCERPTS))
def test_the_template_tells_the_format(template: str, name: str) -> None:
    assert detect(template).name == name


def test_a_format_can_be_named() -> None:
    assert [named(style.name) for style in FORMATS] == list(FORMATS)
    with pytest.raises(BrimError, match=r"no chat format 'qwen9'; there are .*hermes"):
        named("qwen9")
