"""Models from files: a GGUF and a Hugging Face folder of one model are one bundle, and what is not read says why."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nacl.signing import SigningKey
from numpy.typing import NDArray
from safetensors.numpy import save_file

from fallow.models.builder import write
from fallow.models.checkpoint import Checkpoint, read_json
from fallow.models.huggingface import bert_sizes, bert_weights, llama_sizes, llama_weights
from fallow.models.local import name_of, read
from fallow.models.recipe import Model
from fallow.models.tiny import tiny_chat, tiny_embed
from fallow.node.engine import entries
from fallow.node.engine.bundles import BundleStore
from fallow.node.engine.kept import Kept
from fallow.node.engine.loading import own_grant
from fallow.node.engine.programs import load
from fallow.node.engine.sequences import zeros
from fallow.node.engine.turns import alone
from fallow.protocol.bundle import Manifest
from fallow.protocol.envelope import sign
from fallow.protocol.errors import Code, StoreError
from fallow.protocol.work import Parameters, Work

REFERENCES = Path(__file__).parents[1] / "fixtures" / "references"
CONTEXT = 64
CHAT = tiny_chat(Path(), lambda _stage, _fraction: None)
EMBED = tiny_embed(Path(), lambda _stage, _fraction: None)
PROMPT = tuple(range(60, 90))
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 16
WORDS: Mapping[str, int] = json.loads(CHAT.tokenizer or b"")["model"]["vocab"]

Named = dict[str, NDArray[Any]]


def silent(_stage: str, _fraction: float) -> None:
    pass


def parts() -> Named:
    """tiny-chat's matrices one by one, in Hugging Face's names."""
    rows = HEADS * HEAD_DIM, (HEADS + KV_HEADS) * HEAD_DIM
    named = {"model.embed_tokens.weight": CHAT.weights["embed"], "model.norm.weight": CHAT.weights["norm"]}
    named["lm_head.weight"] = CHAT.weights["output"]
    for layer in range(2):
        into, own = f"model.layers.{layer}.", {k: CHAT.weights[f"{layer}.{k}"] for k in ("qkv", "gate_up", "o", "down")}
        for part, matrix in zip("qkv", np.split(own["qkv"], rows), strict=True):
            named[f"{into}self_attn.{part}_proj.weight"] = matrix
        for part, matrix in zip(("gate", "up"), np.split(own["gate_up"], 2), strict=True):
            named[f"{into}mlp.{part}_proj.weight"] = matrix
        named[f"{into}self_attn.o_proj.weight"], named[f"{into}mlp.down_proj.weight"] = own["o"], own["down"]
        named[f"{into}input_layernorm.weight"] = CHAT.weights[f"{layer}.attention_norm"]
        named[f"{into}post_attention_layernorm.weight"] = CHAT.weights[f"{layer}.mlp_norm"]
    return named


def config() -> dict[str, Any]:
    return {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": len(WORDS), "rope_theta": 10_000.0,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "eos_token_id": 2,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "Tiny Chat"
    path.mkdir()
    save_file(parts(), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config()))
    padded = json.loads(CHAT.tokenizer or b"") | {
        "padding": {"strategy": "BatchLongest"},
        "truncation": {"max_length": 8},
    }
    (path / "tokenizer.json").write_text(json.dumps(padded))
    (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHAT.chat_template}))
    (path / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Tiny\n")
    return path


def interleaved(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """A GGUF's order of q and k: the two of a rotary pair side by side."""
    halves = rows.reshape(-1, 2, HEAD_DIM // 2, rows.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def write_gguf(path: Path, extra: Callable[[gguf.GGUFWriter], None] = lambda _: None, **changes: Any) -> Path:
    """tiny-chat as llama.cpp's converter would write it; what the writer is told besides."""
    names = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    names |= {f"self_attn.{part}_proj": f"attn_{part}" for part in "qkv"} | {"self_attn.o_proj": "attn_output"}
    names |= {f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")}
    writer = gguf.GGUFWriter(path, changes.get("architecture", "llama"))
    writer.add_license("Apache-2.0")
    writer.add_block_count(2)
    writer.add_context_length(256)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(128)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.get("rule", "gpt-2"))
    writer.add_token_list(list(WORDS))
    writer.add_token_types([3 if index < 3 else 1 for index in range(len(WORDS))])
    writer.add_token_merges([])
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT.chat_template)
    extra(writer)
    for name, tensor in parts().items():
        place = name.removesuffix(".weight").split(".", 3)
        if len(place) == 4:
            turned = place[3] in ("self_attn.q_proj", "self_attn.k_proj")
            writer.add_tensor(f"blk.{place[2]}.{names[place[3]]}.weight", interleaved(tensor) if turned else tensor)
        else:
            whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
            writer.add_tensor(f"{whole[name.removesuffix('.weight')]}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def made(model: Model, directory: Path) -> tuple[Manifest, Mapping[str, Path]]:
    directory.mkdir()
    return write("tiny", model, directory, silent)


def test_a_gguf_and_a_folder_become_one_bundle_that_answers_as_tiny_chat_does(
    folder: Path, tmp_path: Path, tiny_store: BundleStore
) -> None:
    """Rows of q and k lie otherwise in the two."""
    from_gguf = read(write_gguf(tmp_path / "tiny.gguf"), "", "", CONTEXT, silent)
    from_folder = read(folder, "", "", CONTEXT, silent)
    one, files = made(from_gguf, tmp_path / "one")
    other, _ = made(from_folder, tmp_path / "other")
    assert one.weights == other.weights
    assert one == replace(other, provenance=one.provenance)
    assert (one.licence, one.chat_template, one.end_tokens) == ("Apache-2.0", CHAT.chat_template, (2,))
    tiny = tiny_store.find("tiny-chat")
    assert tiny is not None
    assert (one.weights, one.parameters) == (tiny.manifest.weights, tiny.manifest.parameters)
    alike = {program.name for program in one.programs} & {program.name for program in tiny.manifest.programs}
    assert alike >= {"prefill-32-64", "decode-1-64", "decode-4-64", "score-32-64"}
    artifacts = ({p.name: p.artifact for p in each.programs if p.name in alike} for each in (one, tiny.manifest))
    assert next(artifacts) == next(artifacts)
    key = SigningKey.generate()
    bundle = BundleStore(tmp_path / "store").install(one, lambda manifest: sign(manifest, key), files)

    def answer(bundle: Any) -> list[int]:
        """By the programs of `tiny-chat`, as they were compiled with it: whoever has their bytes finds them."""
        model = load(bundle, own_grant(Kept(tiny_store.compile_cache)))
        steps = entries.generate(model.manifest, Parameters(16), Work((PROMPT,)))
        return [step.piece.tokens[0] for step in alone(model, Parameters(16), steps)]

    assert answer(bundle) == answer(tiny)


def test_a_folder_s_llama_computes_as_transformers_does() -> None:
    path, reference = REFERENCES / "hf_llama", np.load(REFERENCES / "hf_llama.npz")
    checkpoint = Checkpoint(path)
    assert len(checkpoint.files) == 3
    llama = llama_sizes(read_json(path / "config.json"), 32)
    weights = {name: jnp.asarray(array) for name, array in llama_weights(llama, checkpoint)}
    tokens = jnp.asarray(reference["tokens"], jnp.int32)[None]
    _, hidden = jax.jit(llama.extend)(weights, zeros(llama.state(), 1, 32), tokens, jnp.zeros(1, jnp.int32))
    ours = np.asarray(llama.logits(weights, hidden))[0]
    assert np.abs(ours - reference["logits"]).max() < 1e-4  # measured: 7e-6, of logits up to 4.8


def test_a_folder_s_bert_computes_as_transformers_does() -> None:
    path, reference = REFERENCES / "hf_bert", np.load(REFERENCES / "hf_llama.npz")
    bert = bert_sizes(read_json(path / "config.json"))
    weights = {name: jnp.asarray(array) for name, array in bert_weights(bert, Checkpoint(path))}
    tokens = jnp.asarray(reference["tokens"], jnp.int32)[None]
    vector = np.asarray(jax.jit(bert.encode)(weights, tokens, jnp.array([tokens.shape[1]])))[0]
    assert np.abs(vector - reference["vector"]).max() < 1e-5  # measured: 7e-8


def test_a_folder_s_sentence_encoder_is_read_with_its_tokenizer(tmp_path: Path) -> None:
    folder = shutil.copytree(REFERENCES / "hf_bert", tmp_path / "bert")
    (folder / "tokenizer.json").write_bytes(EMBED.tokenizer or b"")
    model = read(folder, "MIT", "made up", 48, silent)
    assert [draft.name for draft in model.programs] == ["call-1-32", "call-8-32", "call-1-48", "call-8-48"]
    assert (model.licence, model.provenance, model.context) == ("MIT", "made up", 48)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}'
    )
    assert "does not take the mean" in refused(folder, "MIT")


def refused(path: Path, licence: str = "", context: int | None = None) -> str:
    with pytest.raises(StoreError) as raised:
        read(path, licence, "", context, silent)
    assert raised.value.code is Code.UNSUPPORTED_MODEL
    assert "\n" not in raised.value.message
    return raised.value.message


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model_type": "mistral"}, "'mistral' model"),
        ({"model_type": None}, "model_type"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "rope scaling"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope scaling"),
        ({"attention_bias": True}, "biases"),
        ({"sliding_window": 32}, "a sliding window"),
        ({"hidden_act": "gelu"}, "the activation 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantised weights"),
        ({"num_hidden_layers": 1}, "tensors that no Llama here has, such as model.layers.1."),
        ({"num_hidden_layers": 3}, "no tensor model.layers.2."),
        ({"intermediate_size": 64}, "Parameter 0.gate_up is of shape [256, 64]"),
        ({"hidden_size": None}, "does not say hidden_size"),
    ],
)
def test_a_folder_s_model_that_no_family_computes_is_refused(folder: Path, change: dict[str, Any], why: str) -> None:
    (folder / "config.json").write_text(json.dumps(config() | change))
    assert why in refused(folder)


def test_a_folder_that_lacks_something_says_what(folder: Path) -> None:
    assert "trained on 256 positions" in refused(folder, context=512)
    assert "not a multiple of 32" in refused(folder, context=40)
    (folder / "README.md").unlink()
    assert "licence" in refused(folder)
    (folder / "tokenizer.json").unlink()
    assert "no tokenizer.json" in refused(folder, "MIT")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-64])
    assert "cut short" in refused(folder, "MIT")
    weights.write_bytes(b"\xff" * 100)
    assert "not a safetensors file" in refused(folder, "MIT")
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    assert "pickles, which are programs and never read" in refused(folder, "MIT")
    assert "pickles are never read" in refused(folder / "pytorch_model.bin", "MIT")
    (folder / "config.json").write_text("{")
    assert "not JSON" in refused(folder)
    assert "is not there" in refused(folder / "nothing")


def test_shards_lie_in_the_folder_or_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"model.norm.weight": "../other.safetensors"}}'
    )
    assert "outside of" in refused(folder)


@pytest.mark.parametrize(
    ("extra", "changes", "why"),
    [
        (lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR), {}, "rope scaling"),
        (lambda w: w.add_sliding_window(32), {}, "a sliding window"),
        (lambda w: w.add_expert_count(4), {}, "experts"),
        (lambda w: w.add_key_length(32), {}, "heads of which a part is not turned"),
        (lambda w: w.add_tensor("blk.0.attn_q.bias", np.ones(64, np.float32)), {}, "blk.0.attn_q.bias"),
        (lambda w: w.add_add_bos_token(True), {}, "a token of its own"),
        (lambda w: None, {"architecture": "gemma3"}, "'gemma3' model"),
        (lambda w: None, {"rule": "llama-bpe"}, "gpt2/llama-bpe"),
    ],
)
def test_a_gguf_that_no_family_computes_is_refused(
    tmp_path: Path, extra: Callable[[gguf.GGUFWriter], None], changes: dict[str, str], why: str
) -> None:
    assert why in refused(write_gguf(tmp_path / "odd.gguf", extra, **changes))


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.gguf"
    for content in (b"GGUF", b"not at all one of them", b"GGUF" + b"\xff" * 60):
        path.write_bytes(content)
        assert "not a GGUF file" in refused(path)


@pytest.mark.parametrize(
    ("path", "name"), [("a/Tiny Chat", "tiny-chat"), ("SmolLM2-135M.Q4_1.gguf", "smollm2-135m.q4-1")]
)
def test_a_bundle_is_called_as_its_file_is(path: str, name: str) -> None:
    assert name_of(Path(path)) == name
