"""Models of Hugging Face's libraries and of Lightning, as these make them: no wrapper, no change.

They come with `pip install -e '.[frameworks]'`; where they are missing, the tests are skipped and say so.
"""

import os

import pytest
import torch
from torch.nn import functional as F

import landscape as ll

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all models are made from settings; nothing is downloaded
pytestmark = pytest.mark.filterwarnings("ignore")  # what those libraries warn of is for them to mend


def of(library):
    return pytest.importorskip(library, reason=f"{library} is not installed: extra [frameworks]")


def tokens(count=4, length=16):
    return torch.randint(64, (count, length), generator=torch.Generator().manual_seed(0))


def own_loss(model, batch):
    """The loss that a language model computes itself: the mean over the labels that have one before them."""
    number = batch["labels"][:, 1:].numel()
    return model(**batch).loss * number, number


def language_model(transformers, name):
    if name == "GPT2":
        settings = transformers.GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=2, n_head=2)
        return transformers.GPT2LMHeadModel(settings)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=64, **sizes))


def check_derivatives(objective):
    """Hessian products are differences of the gradient, as near as losses tell that compute in float32."""
    exact = objective.in_float64()
    v = torch.randn(exact.params.numel, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = 1e-2 * v / v.norm()
    difference = (exact.grad(exact.theta + step) - exact.grad(exact.theta - step)) / 2
    product = ll.hessian(exact)(step)
    assert float((product - difference).norm() / difference.norm()) < 1e-3
    found = ll.top_eigenpairs(objective, k=1)
    assert all(found.converged)
    assert ll.line(objective, grid=3, radius=0.1).losses[1] == pytest.approx(objective.value(), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GPT2", "Llama"])
def test_a_language_model_that_computes_its_own_loss(name):
    transformers = of("transformers")
    torch.manual_seed(0)
    model = language_model(transformers, name).eval()
    batch = {"input_ids": tokens(), "labels": tokens()}
    objective = ll.Objective(model, [batch], own_loss)
    assert objective.value() == pytest.approx(float(model(**batch).loss), rel=1e-6)
    check_derivatives(objective)
    measured(objective)


def test_a_classifier_that_returns_an_object():
    transformers = of("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings = transformers.BertConfig(vocab_size=64, max_position_embeddings=16, num_labels=3, **sizes)
    model = transformers.BertForSequenceClassification(settings).eval()
    inputs = {"input_ids": tokens(), "attention_mask": torch.ones(4, 16, dtype=torch.long)}
    labels = torch.tensor([0, 1, 2, 0])
    objective = ll.supervised(model, [(inputs, labels)], F.cross_entropy)
    assert objective.value() == pytest.approx(float(model(**inputs, labels=labels).loss), rel=1e-6)
    check_derivatives(objective)
    measured(objective)


@pytest.mark.slow
def test_a_diffusion_model_and_the_noise_it_is_to_find():
    diffusers = of("diffusers")
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    images, noise, times = torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8), torch.randint(100, (4,))
    noisy = diffusers.DDPMScheduler(100).add_noise(images, noise, times)

    def loss(model, batch):
        noisy, times, noise = batch
        return F.mse_loss(model(noisy, times).sample, noise, reduction="sum"), noise.numel()

    objective = ll.Objective(model, [(noisy, times, noise)], loss)
    check_derivatives(objective)
    measured(objective)


def test_a_checkpoint_as_lightning_writes_it(tmp_path):
    lightning = of("lightning")

    class Module(lightning.LightningModule):
        def __init__(self, width: int = 8) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.network = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 3))

        def training_step(self, batch, _):
            return F.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.randn(32, 4), torch.randint(3, (32,)))
    loader = torch.utils.data.DataLoader(data, 8)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    module = Module()
    trainer.fit(module, loader)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    network = ll.load_weights(Module().network, tmp_path / "a.ckpt")
    for ours, theirs in zip(network.parameters(), module.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    check_derivatives(ll.supervised(network, loader, F.cross_entropy))


def measured(objective):
    """Take every measurement of a small model as a command takes them, and return what they found."""
    pairs = ll.top_eigenpairs(objective, k=2, tol=1e-2)
    flat = ll.sharpness(objective, ["sam", "trace"], probes=2)
    surface = ll.plane(objective, radius=0.1, grid=3)
    assert surface.losses[1, 1] == pytest.approx(objective.value(), rel=1e-6)
    assert all(row.contrasts[0].difference == 0 for row in ll.compare({"a": flat, "b": flat}).rows)
    return pairs


def test_an_adapter_of_peft_and_only_it_is_measured(tmp_path):
    transformers, peft = of("transformers"), of("peft")
    settings = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)

    def adapted(seed):
        torch.manual_seed(0)
        base = language_model(transformers, "GPT2")
        torch.manual_seed(seed)
        model = peft.get_peft_model(base, settings)
        for parameter in filter(lambda p: p.requires_grad, model.parameters()):
            torch.nn.init.normal_(parameter, std=0.1)
        return model.eval()

    model, batch = adapted(1), {"input_ids": tokens(), "labels": tokens()}
    objective = ll.Objective(model, [batch], own_loss)
    assert objective.value() == pytest.approx(float(model(**batch).loss), rel=1e-6)
    assert objective.params.numel == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert {entry.group for entry in objective.params.entries} == {"attention"}
    check_derivatives(objective)
    measured(objective)
    model.save_pretrained(tmp_path)
    again = ll.load_weights(adapted(2), tmp_path / "adapter_model.safetensors")
    assert ll.Objective(again, [batch], own_loss).value() == objective.value()


@pytest.mark.parametrize("size", ["50GB", "10KB"])
def test_a_model_of_hugging_face_as_it_is_saved(size, tmp_path):
    """Its tied output layer is saved once; a large one in several files, with an index."""
    transformers = of("transformers")
    model, other = (language_model(transformers, "GPT2") for _ in range(2))
    model.save_pretrained(tmp_path, max_shard_size=size)
    name = "model.safetensors" if size == "50GB" else "model.safetensors.index.json"
    ll.load_weights(other, tmp_path / name)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    params = ll.ParamSpace(model)
    assert params.groups.keys() == {"embedding", "norm", "attention", "ffn"}
    axes = {entry.name: entry.filter_axis for entry in params.entries}
    assert {axes[name] for name in axes if "c_attn.weight" in name or "c_fc.weight" in name} == {1}


def test_a_residual_network():
    transformers = of("transformers")
    torch.manual_seed(0)
    sizes = {
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 32, 64],
        "depths": [2, 2, 2, 2],
    }  # ResNet-18, narrow
    settings = transformers.ResNetConfig(**sizes, layer_type="basic", num_labels=3)
    model = transformers.ResNetForImageClassification(settings)
    batches = [(torch.randn(2, 3, 32, 32), torch.tensor([0, 2]))]
    objective = ll.supervised(model, batches, torch.nn.CrossEntropyLoss())
    assert objective.params.groups.keys() == {"convolution", "norm", "head"}
    assert all(measured(objective).converged)
