from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from converter.quantization import Quantization
from server.models.modelfile import ROLES, Adapter, Message, Modelfile, ModelfileError, parse, serialise
from server.models.parameters import MEANT, NOT_IN_BRIM, RULES, SYNONYMS, Parameters


def test_reads_every_keyword() -> None:
    text = '''
# A comment, and keywords in any case.
from ./checkpoint
Quantize q4_k_m
ADAPTER ./lora.gguf 0.5
ADAPTER "./another lora.gguf"
DRAFT ./draft.gguf
PARAMETER temperature 0.7
PARAMETER max_tokens 200
PARAMETER stop "<|im_end|>"
PARAMETER stop """
User:
"""
SYSTEM """
You are "brief".
# not a comment
"""
TEMPLATE """{% for m in messages %}{{ m.content }}
{% endfor %}"""
message USER Who are you?
MESSAGE assistant "I am brim. "
LICENSE MIT
LICENSE ""
'''
    assert parse(text) == Modelfile(
        source="./checkpoint",
        quantize="Q4_K_M",
        adapters=(Adapter("./lora.gguf", 0.5), Adapter("./another lora.gguf")),
        draft="./draft.gguf",
        parameters=Parameters(temperature=0.7, num_predict=200, stop=("<|im_end|>", "User:")),
        system='You are "brief".\n# not a comment',
        template="{% for m in messages %}{{ m.content }}\n{% endfor %}",
        messages=(Message("user", "Who are you?"), Message("assistant", "I am brim. ")),
        licenses=("MIT", ""),
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("plain words  ", "plain words"),
        ('"  kept  "', "  kept  "),
        ('""', ""),
        ('""""""', ""),
        ('"""one line"""', "one line"),
        ('"""\n"""', ""),
        ('"""\n\n"""', ""),
        ('"""\n\n\n"""', "\n"),
        ('"""  \nindented\n  two\n"""  ', "indented\n  two"),
        ('"""ends in a "quote""""', 'ends in a "quote"'),
        ('""""\nfour around """ three\n""""', 'four around """ three'),
        ("back\\slash \\n", "back\\slash \\n"),
        ("# no comment", "# no comment"),
    ],
)
def test_texts(written: str, meant: str) -> None:
    modelfile = parse(f"FROM x\nSYSTEM {written}\nLICENSE after")
    assert modelfile.system == meant
    assert modelfile.licenses == ("after",)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("FORM ./x", 1, "did you mean FROM?"),
        ("FROM x\n\nCMD run", 3, "begins with one of FROM"),
        ("FROM x\nFROM y", 2, "line 1 already"),
        ("FROM x\nFROM ./a.gguf\nFROM b.gguf", 3, "PROJECTOR stands in line 2 already"),
        ("FROM x\nPROJECTOR a.gguf\nFROM ~/b", 3, "PROJECTOR stands in line 2 already"),
        ('FROM x\nPROJECTOR ""', 2, "one folder, file or model name"),
        ("FROM x\nSYSTEM a\nsystem b", 3, "SYSTEM stands in line 2 already"),
        ("FROM x\nPARAMETER temprature 1", 2, "did you mean temperature?"),
        ("FROM x\nPARAMETER n_ctx 1", 2, "did you mean num_ctx?"),
        ("FROM x\nPARAMETER mirostat 1", 2, "brim has no parameter mirostat"),
        ("FROM x\nPARAMETER zzzzzz 1", 2, "there are temperature, top_k"),
        ("FROM x\nPARAMETER temperature", 2, "a name and a value"),
        ("FROM x\nPARAMETER temperature hot", 2, "a number from 0 up, not 'hot'"),
        ("FROM x\nPARAMETER temperature nan", 2, "a number from 0 up"),
        ("FROM x\nPARAMETER temperature inf", 2, "a number from 0 up"),
        ("FROM x\nPARAMETER top_p 1.5", 2, "a number from 0 to 1, not '1.5'"),
        ("FROM x\nPARAMETER top_k 1.5", 2, "a whole number from 0 up"),
        ("FROM x\nPARAMETER kv_type q5_1", 2, "one of f16, q8_0, q4_0, f32"),
        ("FROM x\nPARAMETER seed 1\nPARAMETER seed 2", 3, "set already, to 1"),
        ("FROM x\nMESSAGE robot hi", 2, "one of the roles system, user, assistant"),
        ("FROM x\nMESSAGE user", 2, "MESSAGE user has nothing after it"),
        ("FROM x\nMESSAGE", 2, "MESSAGE takes one of the roles"),
        ("FROM", 1, "FROM has nothing after it"),
        ('FROM ""', 1, "one folder, file or model name"),
        ('FROM """a\nb"""', 1, "one folder, file or model name"),
        ("FROM x\nQUANTIZE Q4_X", 2, "no quantization type"),
        ("FROM x\nADAPTER my lora.gguf", 2, "put a path with spaces in quotes"),
        ("FROM x\nADAPTER lora.gguf nan", 2, "is a number"),
        ("FROM x\nADAPTER a b c", 2, "ADAPTER takes a GGUF file"),
        ('FROM x\nSYSTEM "open', 2, "does not end with the line"),
        ('FROM x\nSYSTEM """open\nand open', 2, "never closed"),
        ('FROM x\nSYSTEM """closed""" but', 2, "stands 'but'"),
        ('FROM x\nSYSTEM """\na\nb\n"""\nBAD', 6, "no Modelfile keyword"),
        ("FROM x\nTEMPLATE {{ .System }} {{ .Prompt }}", 2, "Go template"),
        ('FROM x\nTEMPLATE """{{- if .System }}{{ end }}"""', 2, "Go template"),
        ('FROM x\nTEMPLATE """{{- range $i, $_ := .Messages }}"""', 2, "Go template"),
        ("FROM x\nRENDERER qwen", 2, "RENDERER has no meaning here"),
    ],
)
def test_refusals_name_the_line_and_what_to_do(text: str, line: int, says: str) -> None:
    with pytest.raises(ModelfileError) as raised:
        parse(text, "My/Modelfile")
    assert str(raised.value).startswith(f"My/Modelfile, line {line}: ")
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "# nothing", "SYSTEM hello"])
def test_from_is_needed(text: str) -> None:
    with pytest.raises(ModelfileError, match="Modelfile has no FROM line"):
        parse(text)


@pytest.mark.parametrize(
    "template", ["{{ messages[0].content }}", "{%- if x %}{{ iffy }}{% endif %}", "{{- bos_token }}"]
)
def test_jinja_is_not_taken_for_go(template: str) -> None:
    assert parse(f"FROM x\nTEMPLATE {template}").template == template


def test_every_parameter_has_a_rule_and_no_name_is_said_twice() -> None:
    assert list(RULES) == list(Parameters.__struct_fields__)
    assert set(SYNONYMS.values()) | set(MEANT.values()) <= set(RULES)
    assert not NOT_IN_BRIM & set(RULES)


@pytest.mark.parametrize("second", ["./b.gguf", "b.gguf", '"my b.gguf"', "/blobs/sha256-0", "../b", "~/b"])
def test_a_second_from_names_the_projector_as_ollama_has_it(second: str) -> None:
    modelfile = parse(f"FROM ./a.gguf\nFROM {second}")
    assert (modelfile.source, modelfile.projector) == ("./a.gguf", second.strip('"'))


def test_parameters_over_others() -> None:
    base = Parameters(temperature=1.0, top_k=5, stop=("a", "b"))
    assert Parameters(temperature=0.0, stop=("c",)).over(base) == Parameters(temperature=0.0, top_k=5, stop=("c",))
    assert Parameters().over(base) == base


# -- parse(serialise(x)) == x ------------------------------------------------------------------------------------------

texts = st.one_of(
    st.text(),
    st.text(alphabet='"\\ \n\ta#', max_size=12),
    st.lists(st.sampled_from(['"', '"""', '"""""', "\n", " ", "SYSTEM x", "end"])).map("".join),
)
paths = st.text(alphabet="abc/._- :", min_size=1).filter(lambda path: path.strip() == path)


def parameter_values(name: str) -> st.SearchStrategy[object]:
    rule = RULES[name]
    if name == "stop":
        return st.lists(texts, max_size=3).map(tuple)
    if rule.choices:
        return st.none() | st.sampled_from(rule.choices)
    high = None if math.isinf(rule.high) else rule.high
    if rule.kind is int:
        return st.none() | st.integers(int(rule.low), None if high is None else int(high))
    return st.none() | st.floats(rule.low, high, allow_nan=False, allow_infinity=False)


modelfiles = st.builds(
    Modelfile,
    source=paths,
    quantize=st.none() | st.sampled_from(list(Quantization.__members__)),
    parameters=st.fixed_dictionaries({name: parameter_values(name) for name in RULES}).map(
        lambda values: structs.replace(Parameters(), **values)
    ),
    system=st.none() | texts,
    template=st.none() | texts.filter(lambda text: "{{" not in text),
    messages=st.lists(st.builds(Message, st.sampled_from(list(ROLES)), texts), max_size=3).map(tuple),
    adapters=st.lists(st.builds(Adapter, paths, st.floats(allow_nan=False, allow_infinity=False)), max_size=2).map(
        tuple
    ),
    draft=st.none() | paths,
    projector=st.none() | paths,
    licenses=st.lists(texts, max_size=2).map(tuple),
)


@given(modelfiles)
def test_what_is_written_reads_back(modelfile: Modelfile) -> None:
    assert parse(serialise(modelfile)) == modelfile


@given(
    st.lists(
        st.sampled_from(
            ["FROM x", "PARAMETER stop", "SYSTEM", "MESSAGE user", "ADAPTER", '"', '"""', "\n", " ", "#", "1"]
        )
    )
)
def test_any_text_is_read_or_refused(parts: list[str]) -> None:
    try:
        modelfile = parse(" ".join(parts))
    except ModelfileError:
        return
    assert parse(serialise(modelfile)) == modelfile
