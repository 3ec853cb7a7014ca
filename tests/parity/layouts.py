"""Checkpoints in the layouts of public projects, written from a torchvision network.

Each function takes a network and returns what is saved.
"""

import argparse
import copy
import datetime
import enum
import re

import torch
import torch.nn.utils.prune
import torchvision

LAYOUTS = {}


def layout(project, head=False, **how):
    """Registers a layout: its project, whether its head is a classifier, arguments to load it."""

    def note(function):
        LAYOUTS[function.__name__] = (project, head, how, function)
        return function

    return note


def put(state, prefix, head=None):
    """Returns a state_dict with a prefix; its head is renamed or left out."""
    return {
        prefix
        + (key.replace("fc.", f"{head}.", 1) if head and key.startswith("fc.") else key): value
        for key, value in state.items()
        if head or not key.startswith("fc.")
    }


def linear(name, rows, columns, **more):
    return {f"{name}.weight": torch.randn(rows, columns), f"{name}.bias": torch.randn(rows), **more}


def norm(name, size):
    return {
        **{f"{name}.weight": torch.ones(size), f"{name}.bias": torch.zeros(size)},
        **{f"{name}.running_mean": torch.zeros(size), f"{name}.running_var": torch.ones(size)},
        f"{name}.num_batches_tracked": torch.tensor(1),
    }


def conv(name, rows, columns, side=3):
    return {f"{name}.weight": torch.randn(rows, columns, side, side)}


def other(net):
    """Returns the state_dict of the same network with other values."""
    torch.manual_seed(5)
    changed = copy.deepcopy(net)
    for parameter in changed.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.01)
    return changed.state_dict()


def features(net):
    return net.fc.in_features


class Mode(enum.Enum):
    TRAIN = 1


@layout("torchvision", head=True)
def plain(net):
    return net.state_dict()


@layout("pytorch/examples imagenet", head=True)
def data_parallel(net):
    wrapped = torch.nn.DataParallel(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    return {
        **{"epoch": 3, "arch": "resnet18", "state_dict": wrapped.state_dict()},
        **{"best_acc1": torch.tensor(70.0), "optimizer": optimizer.state_dict()},
        **{"when": datetime.datetime.now(), "args": argparse.Namespace(lr=0.1), "mode": Mode.TRAIN},
    }


@layout("torch.compile", head=True)
def compiled(net):
    return put(net.state_dict(), "_orig_mod.", "fc")


@layout("FSDP", head=True)
def sharded(net):
    state = put(net.state_dict(), "_fsdp_wrapped_module.", "fc")
    return {key.replace(".conv", "._fsdp_wrapped_module.conv"): v for key, v in state.items()}


@layout("torch's checkpoint_wrapper", head=True)
def recomputed(net):
    return {
        key.replace(".0.", ".0._checkpoint_wrapped_module.", 1) if "layer" in key else key: value
        for key, value in net.state_dict().items()
    }


@layout("Lightning", head=True)
def lightning(net):
    return {
        **{"epoch": 1, "global_step": 9, "pytorch-lightning_version": "2.1.0"},
        **{
            "state_dict": {
                **put(net.state_dict(), "model.", "fc"),
                "criterion.weight": torch.ones(7),
            }
        },
        **{"hyper_parameters": argparse.Namespace(lr=1), "callbacks": {}, "loops": {}},
    }


@layout("a module named resnet, dropout before its head", head=True)
def dropout_head(net):
    return put(net.state_dict(), "resnet.", "fc.1")


@layout("BYOL (lucidrains)")
def byol(net):
    return {
        **put(net.state_dict(), "net."),
        **linear("projector.0", 32, features(net)) | norm("projector.1", 32),
        **linear("projector.3", 16, 32),
    }


@layout("BYOL (lucidrains), the learner", prefix="online_encoder")
def byol_learner(net):
    state = {}
    for name, source in (("online", net.state_dict()), ("target", other(net))):
        state |= put(source, f"learner.{name}_encoder.net.")
        state |= linear(f"learner.{name}_encoder.projector.net.0", 32, features(net))
    return {"state_dict": state | linear("learner.online_predictor.net.0", 32, 32)}


@layout("OpenSelfSup's MoCo, with encoder_q as its backbone", prefix="backbone")
def openselfsup(net):
    size, state = features(net), net.state_dict()
    query = put(state, "encoder_q.0.") | linear("encoder_q.1.mlp.0", size, size)
    key = put(other(net), "encoder_k.0.") | linear("encoder_k.1.mlp.0", size, size)
    return {"state_dict": query | key | put(state, "backbone.") | {"queue": torch.zeros(8, 4)}}


@layout("DomainBed", head=True)
def domainbed(net):
    state = put(net.state_dict(), "featurizer.network.")
    state |= put({k: v for k, v in net.state_dict().items() if "fc." in k}, "", "classifier")
    shared = {
        key.replace("featurizer", "network.0").replace("classifier", "network.1"): value
        for key, value in state.items()
    }
    return {"args": {"lr": 0.1}, "model_dict": state | shared}


@layout("DeepSpeed", head=True)
def deepspeed(net):
    return {
        "module": net.state_dict(),
        "optimizer": None,
        "ds_config": {"zero": 0},
        "dp_world_size": 1,
    }


@layout("Places365", head=True)
def places(net):
    return {
        "arch": "resnet18",
        "state_dict": put(net.state_dict(), "module.", "fc"),
        "best_prec1": 1.0,
    }


@layout("MoCo v1", prefix="encoder_q")
def moco_v1(net):
    queue = {"module.queue": torch.randn(128, 64), "module.queue_ptr": torch.zeros(1).long()}
    query, key = net.state_dict(), other(net)
    for state in (query, key):
        state |= linear("fc", 128, features(net))
    return {
        "state_dict": {
            **put(query, "module.encoder_q.", "fc"),
            **put(key, "module.encoder_k.", "fc"),
            **queue,
        }
    }


@layout("MoCo v2", prefix="module.encoder_q")
def moco_v2(net):
    size = features(net)
    state = {}
    for name, source in (("q", net.state_dict()), ("k", other(net))):
        prefix = f"module.encoder_{name}."
        state |= put(source, prefix)
        state |= linear(f"{prefix}fc.0", size, size) | linear(f"{prefix}fc.2", 128, size)
    return {
        "epoch": 200,
        "arch": "resnet50",
        "state_dict": state | {"module.queue": torch.zeros(8, 4)},
    }


@layout("MoCo v3", prefix="base_encoder")
def moco_v3(net):
    size = features(net)
    state = {}
    for name, source in (("base", net.state_dict()), ("momentum", other(net))):
        prefix = f"module.{name}_encoder."
        state |= put(source, prefix) | {f"{prefix}fc.0.weight": torch.randn(64, size)}
        state |= norm(f"{prefix}fc.1", 64) | {f"{prefix}fc.3.weight": torch.randn(32, 64)}
    return {"state_dict": state | {"module.predictor.0.weight": torch.randn(64, 32)}}


@layout("SwAV")
def swav(net):
    head = linear("module.projection_head.0", 64, features(net)) | norm(
        "module.projection_head.1", 64
    )
    head |= linear("module.projection_head.3", 32, 64)
    return (
        put(net.state_dict(), "module.") | head | {"module.prototypes.weight": torch.randn(30, 32)}
    )


@layout("DINO, the full checkpoint", prefix="teacher")
def dino(net):
    def wrapped(state):
        head = linear("module.head.mlp.0", 64, features(net)) | linear("module.head.mlp.2", 64, 64)
        head |= {
            "module.head.last_layer.weight_g": torch.ones(30, 1),
            "module.head.last_layer.weight_v": torch.randn(30, 64),
        }
        return put(state, "module.backbone.") | head

    teacher = {k.removeprefix("module."): v for k, v in wrapped(net.state_dict()).items()}
    loss = {"center": torch.zeros(1, 30)}
    return {"student": wrapped(other(net)), "teacher": teacher, "epoch": 1, "dino_loss": loss}


@layout("Barlow Twins, VICReg: the backbone")
def barlow(net):
    return put(net.state_dict(), "")


@layout("SimCLR (sthalles)")
def simclr(net):
    size = features(net)
    state = put(net.state_dict(), "backbone.")
    return {
        "arch": "resnet18",
        "state_dict": state
        | linear("backbone.fc.0", size, size)
        | linear("backbone.fc.2", 128, size),
    }


@layout("an encoder with a projection head")
def encoder_and_head(net):
    size = features(net)
    state = put(net.state_dict(), "module.encoder.")
    return {
        "opt": argparse.Namespace(model="resnet50"),
        "model": state | linear("module.head.0", size, size) | linear("module.head.2", 128, size),
    }


@layout("solo-learn", head=True)
def solo(net):
    state = put(net.state_dict(), "backbone.") | put(
        {k: v for k, v in net.state_dict().items() if k.startswith("fc.")}, "", "classifier"
    )
    return {
        "state_dict": state
        | linear("projector.0", 64, features(net))
        | linear("projector.3", 8, 64)
    }


@layout("lightly")
def lightly(net):
    return sequence(net, "backbone.") | linear("projection_head.layers.0", 64, features(net))


@layout("VISSL")
def vissl(net):
    trunk = put(net.state_dict(), "_feature_blocks.")
    heads = linear("0.clf.0", 64, features(net)) | linear("0.clf.2", 8, 64)
    model = {"trunk": trunk, "heads": heads}
    return {"phase": 1, "classy_state_dict": {"base_model": {"model": model, "meta": {}}}}


@layout("robustness (madry)", head=True)
def robustness(net):
    def both(prefix):
        return {
            **{f"{prefix}normalizer.new_mean": torch.zeros(3, 1, 1)},
            **{f"{prefix}normalizer.new_std": torch.ones(3, 1, 1)},
        }

    model = put(net.state_dict(), "module.model.", "fc")
    attacked = put(net.state_dict(), "module.attacker.model.", "fc")
    attack = {
        key.replace("normalizer", "attacker.normalize"): value
        for key, value in both("module.").items()
    }
    return {"model": {**both("module."), **model, **attack, **attacked}, "epoch": 9}


@layout("mmpretrain", head=True)
def mmpretrain(net):
    state = put(net.state_dict(), "backbone.")
    fc = {k: v for k, v in net.state_dict().items() if k.startswith("fc.")}
    return {"meta": {"epoch": 1}, "state_dict": state | put(fc, "head.", "fc")}


@layout("mmdetection")
def mmdetection(net):
    size = features(net)
    neck = conv("neck.lateral_convs.0.conv", 8, size, 1) | conv("neck.fpn_convs.0.conv", 8, 8)
    return {
        "state_dict": put(net.state_dict(), "backbone.") | neck | conv("rpn_head.rpn_conv", 8, 8)
    }


def stages(net, *names):
    return torchvision.models._utils.IntermediateLayerGetter(net, {n: n for n in names})


@layout("torchvision's FCN")
def fcn(net):
    head = torchvision.models.segmentation.fcn.FCNHead(features(net), 21)
    return torchvision.models.segmentation.FCN(stages(net, "layer4"), head).state_dict()


@layout("torchvision's DeepLabV3")
def deeplab(net):
    segmentation = torchvision.models.segmentation
    head = segmentation.deeplabv3.DeepLabHead(features(net), 21)
    auxiliary = segmentation.fcn.FCNHead(features(net) // 2, 21)
    return segmentation.DeepLabV3(stages(net, "layer3", "layer4"), head, auxiliary).state_dict()


@layout("torchvision's Faster R-CNN")
def faster_rcnn(net):
    detection, names = torchvision.models.detection, [f"layer{n}" for n in range(1, 5)]
    columns = [features(net) // 2**n for n in (3, 2, 1, 0)]
    backbone = detection.backbone_utils.BackboneWithFPN(
        copy.deepcopy(net), dict(zip(names, "0123", strict=True)), columns, 8
    )
    return detection.FasterRCNN(backbone, 91).state_dict()


@layout("DETR")
def detr(net):
    size = features(net)
    state = put(net.state_dict(), "backbone.0.body.") | conv("input_proj", 256, size, 1)
    state |= linear("transformer.encoder.layers.0.linear1", 64, 256) | linear(
        "class_embed", 92, 256
    )
    return {"model": state | {"query_embed.weight": torch.randn(100, 256)}}


@layout("YOLACT")
def yolact(net):
    state = {
        re.sub(r"^layer(\d)", lambda match: f"layers.{int(match[1]) - 1}", key): value
        for key, value in net.state_dict().items()
    }
    fpn = conv("fpn.lat_layers.0", 8, features(net), 1) | conv(
        "prediction_layers.0.bbox_layer", 12, 8
    )
    return put(state, "backbone.") | fpn


@layout("NVIDIA's DeepLearningExamples", head=True)
def nvidia(net):
    state = {
        re.sub(r"^layer(\d)", lambda match: f"layers.{int(match[1]) - 1}", key): value
        for key, value in net.state_dict().items()
    }
    return {"epoch": 1, "arch": "resnet18", "state_dict": put(state, "module.", "fc")}


@layout("segmentation_models.pytorch")
def smp(net):
    decoder = conv("decoder.blocks.0.conv1.0", 64, 512) | norm("decoder.blocks.0.conv1.1", 64)
    return put(net.state_dict(), "encoder.") | decoder | conv("segmentation_head.0", 1, 16)


@layout("a network with a decoder")
def unet(net):
    return put(net.state_dict(), "") | conv("up1.conv1", 64, 512) | norm("up1.bn1", 64)


def unet_parts(net):
    """A stage is in a sequence with the pooling before it, as in many UNets."""
    children = [*net.children()]
    parts = {"layer0": torch.nn.Sequential(*children[:3])}
    parts |= {"layer1": torch.nn.Sequential(*children[3:5])}
    return parts | {f"layer{n}": children[3 + n] for n in (2, 3, 4)}


@layout("a decoder that contains its encoder in parts")
def unet_in_parts(net):
    state = torch.nn.ModuleDict(unet_parts(net)).state_dict()
    return {**state, **conv("conv_up3.0", 64, 256), **conv("conv_last", 1, 64, 1)}


@layout("a decoder that contains its whole encoder, too, with shared weights", head=True)
def unet_twice(net):
    state = torch.nn.ModuleDict({"base_model": net, **unet_parts(net)}).state_dict()
    return {**state, **conv("conv_up3.0", 64, 256), **conv("conv_last", 1, 64, 1)}


@layout("MiDaS")
def midas(net):
    children = [*net.children()]
    parts = {"layer1": torch.nn.Sequential(*children[:5])}
    parts |= {f"layer{n}": children[3 + n] for n in (2, 3, 4)}
    state = put(torch.nn.ModuleDict(parts).state_dict(), "pretrained.")
    return state | conv("scratch.layer1_rn", 256, 64) | conv("scratch.output_conv.0", 128, 256)


@layout("fastai")
def fastai(net):
    size = features(net)
    head = norm("1.2", 2 * size) | {"1.4.weight": torch.randn(512, 2 * size)} | norm("1.6", 512)
    model = sequence(net, "0.") | head | {"1.8.weight": torch.randn(7, 512)}
    return {"model": model, "opt": {"state": [], "hypers": [{"lr": 0.1}]}}


@layout("a module named feature_extractor")
def feature_extractor(net):
    return {"state_dict": put(net.state_dict(), "feature_extractor.")}


def sequence(net, prefix, head=False):
    """nn.Sequential(*net.children()), with or without the last one."""
    children = [*net.children()]
    kept = children if head else children[:-1]
    return put(torch.nn.Sequential(*kept).state_dict(), prefix, "fc")


@layout("nn.Sequential(*children)", head=True, classes=True)
def sequential(net):
    return sequence(net, "", head=True)


@layout("a stem of nn.Sequential, layer0")
def layer0(net):
    names = {"conv1.": "layer0.0.", "bn1.": "layer0.1."}
    return {
        next((new + k[len(old) :] for old, new in names.items() if k.startswith(old)), k): v
        for k, v in net.state_dict().items()
        if not k.startswith("fc.")
    }


def detectron_names(state):
    """Renames like detectron2's converter for torchvision."""
    names = {}
    for key, value in state.items():
        new = key if key.startswith("layer") else f"stem.{key}"
        for stage in range(1, 5):
            new = new.replace(f"layer{stage}.", f"res{stage + 1}.")
        for number in "123":
            new = new.replace(f"bn{number}.", f"conv{number}.norm.")
        names[new.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")] = (
            value
        )
    return names


@layout("detectron2, converted from torchvision", head=True, version="v1.5")
def detectron2(net):
    arrays = {key: value.numpy() for key, value in detectron_names(net.state_dict()).items()}
    return {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}


@layout("Detectron, with Caffe2's names", head=True, version="v1.5")
def caffe2(net):
    """Normalizations are frozen: a scale and a shift."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            scale = module.weight.data / torch.sqrt(module.running_var + module.eps)
            module.bias.data -= module.running_mean * scale
            module.weight.data = scale
    names = {"conv1.weight": "conv1_w", "fc.weight": "pred_w", "fc.bias": "pred_b"}
    names |= {"bn1.weight": "res_conv1_bn_s", "bn1.bias": "res_conv1_bn_b"}
    blobs = {}
    for key, value in net.state_dict().items():
        match = re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)\.(weight|bias)", key)
        if match:
            stage, block, part, number, leaf = match.groups()
            branch = "branch1" if part == "downsample." else f"branch2{' abc'[int(number)]}"
            is_norm = part == "bn" or (part, number) == ("downsample.", "1")
            leaf = {"weight": "s" if is_norm else "w", "bias": "b"}[leaf]
            norm_part = "_bn" if is_norm else ""
            blobs[f"res{int(stage) + 1}_{block}_{branch}{norm_part}_{leaf}"] = value.numpy()
        elif key in names:
            blobs[names[key]] = value.numpy()
    return {"blobs": blobs}


@layout("detectron2, a trained detector", version="v1.5")
def detectron2_detector(net):
    state = {key: v for key, v in detectron_names(net.state_dict()).items() if "fc." not in key}
    state = put(state, "backbone.bottom_up.")
    fpn = conv("backbone.fpn_lateral2", 8, 64, 1) | conv("proposal_generator.rpn_head.conv", 8, 8)
    return {"model": fpn | state, "iteration": 9}


@layout("detectron2, with the stages in a submodule", version="v1.5")
def detectron2_stages(net):
    state = {key: v for key, v in detectron_names(net.state_dict()).items() if "fc." not in key}
    return {key.replace("res", "stages.res", 1): value for key, value in state.items()}


@layout("maskrcnn_benchmark", version="v1.5")
def maskrcnn_benchmark(net):
    """Normalizations are frozen, without batch counts."""
    state = {
        f"stem.{key}" if key.startswith(("conv1.", "bn1.")) else key: value
        for key, value in net.state_dict().items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }
    rpn = conv("module.rpn.head.conv", 8, 8)
    return {"model": put(state, "module.backbone.body.") | rpn, "iteration": 9}


def unit_names(state):
    """Names of pytorchcv."""
    names = {}
    for key, value in state.items():
        match = re.fullmatch(r"(layer(\d)\.(\d+)\.)?(conv|bn|downsample\.)(\d)\.(\w+)", key)
        if not match:
            names[key.replace("fc.", "output.")] = value
            continue
        block, stage, number, part, digit, leaf = match.groups()
        is_norm = part == "bn" or (part, digit) == ("downsample.", "1")
        name = f"stage{stage}.unit{int(number) + 1}." if block else "init_block."
        if part == "downsample.":
            name += "identity_conv."
        else:
            name += f"body.conv{digit}." if block else "conv."
        names[f"features.{name}{'bn' if is_norm else 'conv'}.{leaf}"] = value
    return names


@layout("pytorchcv", head=True, version="v1.5")
def pytorchcv(net):
    return unit_names(net.state_dict())


@layout("PaddlePaddle's vision models", head=True)
def paddle(net):
    """Linear layers have one row per input."""
    names = {"running_mean": "_mean", "running_var": "_variance"}
    arrays = {}
    for key, value in net.state_dict().items():
        owner, _, leaf = key.rpartition(".")
        if leaf != "num_batches_tracked":
            arrays[f"{owner}.{names.get(leaf, leaf)}"] = value.numpy().copy()
    arrays["fc.weight"] = arrays["fc.weight"].T.copy()
    return {**arrays, "StructuredToParameterName@@": {key: f"{key}_0" for key in arrays}}


@layout("Cadene's pretrained-models", head=True)
def cadene(net):
    return put(net.state_dict(), "", "last_linear")


@layout("torchreid", head=True)
def torchreid(net):
    state = put(net.state_dict(), "module.", "classifier")
    return {"state_dict": state, "epoch": 60, "rank1": 0.9, "optimizer": {}}


@layout("a head with another name and the right number of rows", head=True, classes=True)
def other_head(net):
    return put(net.state_dict(), "cnn.", "top.flowers")


@layout("weight_norm", head=True)
def weight_norm(net):
    net = copy.deepcopy(net)
    for module in [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]:
        torch.nn.utils.parametrizations.weight_norm(module)
    return net.state_dict()


@layout("weight_norm, older version", head=True)
def weight_norm_g_v(net):
    state = net.state_dict()
    for key in [key for key, value in state.items() if value.ndim == 4]:
        kernel = state.pop(key)
        state[f"{key}_g"] = kernel.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        state[f"{key}_v"] = kernel * 3
    return state


@layout("torch.nn.utils.prune", head=True)
def pruned(net):
    net = copy.deepcopy(net)
    for module in [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]:
        torch.nn.utils.prune.identity(module, "weight")
    return net.state_dict()


@layout("timm's training script", head=True, prefix="state_dict_ema")
def timm_training(net):
    return {
        "epoch": 1,
        "arch": "resnet18",
        "state_dict": other(net),
        "state_dict_ema": net.state_dict(),
    }


@layout("a mean teacher", head=True, prefix="ema")
def mean_teacher(net):
    return {"model": other(net), "ema": net.state_dict()}


@layout("averaged weights of torch.optim.swa_utils", head=True)
def averaged(net):
    return torch.optim.swa_utils.AveragedModel(net).state_dict()


@layout("SimSiam")
def simsiam(net):
    size = features(net)
    encoder = put(net.state_dict(), "module.encoder.")
    for number in (0, 3, 6):
        encoder[f"module.encoder.fc.{number}.weight"] = torch.randn(size, size)
        encoder |= norm(f"module.encoder.fc.{number + 1}", size)
    encoder["module.encoder.fc.6.bias"] = torch.randn(size)
    del encoder["module.encoder.fc.7.weight"], encoder["module.encoder.fc.7.bias"]
    return {"state_dict": encoder | linear("module.predictor.0", 64, size)}


def huggingface_names(state):
    """Renames like transformers' conversion from torchvision."""
    names = {}
    for key, value in state.items():
        new = re.sub(
            r"^layer(\d)\.(\d+)\.",
            lambda match: f"encoder.stages.{int(match[1]) - 1}.layers.{match[2]}.",
            key,
        )
        new = re.sub(r"downsample\.0", "shortcut.convolution", new)
        new = re.sub(r"downsample\.1", "shortcut.normalization", new)
        for part, kind in (("conv", "convolution"), ("bn", "normalization")):
            new = re.sub(rf"^{part}1\.", f"embedder.embedder.{kind}.", new)
            new = re.sub(
                rf"\.{part}(\d)\.",
                lambda match, kind=kind: f".layer.{int(match[1]) - 1}.{kind}.",
                new,
            )
        names[f"classifier.1.{new[3:]}" if new.startswith("fc.") else f"resnet.{new}"] = value
    return names


@layout("transformers", head=True)
def transformers(net):
    return huggingface_names(net.state_dict())


@layout("transformers, within a Lightning module", head=True)
def transformers_lightning(net):
    return {"state_dict": {f"model.{k}": v for k, v in huggingface_names(net.state_dict()).items()}}
