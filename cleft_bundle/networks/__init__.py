"""The towers of CLEFT, the dual encoder, and the classifier that it leaves behind."""

from cleft_bundle.networks.backbones import load_tokenizer
from cleft_bundle.networks.classifier import ZeroShotClassifier, class_weights, probabilities
from cleft_bundle.networks.cleft import CLEFT
from cleft_bundle.networks.deployed_classifier import DeployedClassifier
from cleft_bundle.networks.dual_encoder import DualEncoder, DualEncoderTokenizer
from cleft_bundle.networks.exported_classifier import ExportedClassifier, ProgramClassifier, TorchScriptClassifier
from cleft_bundle.networks.image_classifier import FinetunedClassifier, ImageClassifier
from cleft_bundle.networks.image_encoder import ImageEncoder
from cleft_bundle.networks.onnx_classifier import OnnxClassifier
from cleft_bundle.networks.peft_methods import AdaLora, Dora, Frozen, Full, Ia3, Lora, PeftMethod, Prefix
from cleft_bundle.networks.prompt_learner import PromptLearner
from cleft_bundle.networks.text_encoder import TextEncoder
from cleft_bundle.networks.trainable_classifier import TrainableClassifier

__all__ = [
    "CLEFT",
    "AdaLora",
    "DeployedClassifier",
    "Dora",
    "DualEncoder",
    "DualEncoderTokenizer",
    "ExportedClassifier",
    "FinetunedClassifier",
    "Frozen",
    "Full",
    "Ia3",
    "ImageClassifier",
    "ImageEncoder",
    "Lora",
    "OnnxClassifier",
    "PeftMethod",
    "Prefix",
    "ProgramClassifier",
    "PromptLearner",
    "TextEncoder",
    "TorchScriptClassifier",
    "TrainableClassifier",
    "ZeroShotClassifier",
    "class_weights",
    "load_tokenizer",
    "probabilities",
]
