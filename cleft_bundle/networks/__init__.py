"""The towers of CLEFT, the dual encoder, and the classifier that it leaves behind."""

from cleft_bundle.networks.backbones import load_tokenizer
from cleft_bundle.networks.classifiers.deployed_classifier import DeployedClassifier
from cleft_bundle.networks.classifiers.exported_classifier import (
    ExportedClassifier,
    ProgramClassifier,
    TorchScriptClassifier,
)
from cleft_bundle.networks.classifiers.image_classifier import FinetunedClassifier, ImageClassifier
from cleft_bundle.networks.classifiers.onnx_classifier import OnnxClassifier
from cleft_bundle.networks.classifiers.trainable_classifier import TrainableClassifier
from cleft_bundle.networks.classifiers.zero_shot import ZeroShotClassifier, class_weights, probabilities
from cleft_bundle.networks.cleft import CLEFT
from cleft_bundle.networks.dual_encoder import DualEncoder, DualEncoderTokenizer
from cleft_bundle.networks.dual_towers import build_image_encoder
from cleft_bundle.networks.image_encoder import ImageEncoder
from cleft_bundle.networks.peft_methods import AdaLora, Dora, Frozen, Full, Ia3, Lora, PeftMethod, Prefix
from cleft_bundle.networks.protocol import DualNetwork, Embeddings, Network
from cleft_bundle.networks.text.prompt_learner import PromptLearner
from cleft_bundle.networks.text.text_encoder import TextEncoder

__all__ = [
    "CLEFT",
    "AdaLora",
    "DeployedClassifier",
    "Dora",
    "DualEncoder",
    "DualEncoderTokenizer",
    "DualNetwork",
    "Embeddings",
    "ExportedClassifier",
    "FinetunedClassifier",
    "Frozen",
    "Full",
    "Ia3",
    "ImageClassifier",
    "ImageEncoder",
    "Lora",
    "Network",
    "OnnxClassifier",
    "PeftMethod",
    "Prefix",
    "ProgramClassifier",
    "PromptLearner",
    "TextEncoder",
    "TorchScriptClassifier",
    "TrainableClassifier",
    "ZeroShotClassifier",
    "build_image_encoder",
    "class_weights",
    "load_tokenizer",
    "probabilities",
]
