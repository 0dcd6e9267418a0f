"""Take one step on each of some batches, and print by how much the peak of resident memory grew, in MB.

``16 256/16``: a batch of 16, then one of 256 in chunks of 16. A process each, forked before PyTorch has any threads, so
that the imports, most of the time, happen once.
"""

import os
import sys

import torch
from monai.engines import SupervisedTrainer

from cleft_bundle.engines import PrepareImageText, TrainingStep
from cleft_bundle.losses import ContrastiveLoss
from cleft_bundle.networks import CLEFT, ImageEncoder, TextEncoder
from scripts.benchmarks.memory import megabytes
from tests.conftest import TINY_GPT2, TINY_VIT


def main(batch_size: int, chunk_size: int | None) -> None:
    vit = TINY_VIT | {"hidden_size": 96, "num_hidden_layers": 4, "image_size": 112}
    network = CLEFT(ImageEncoder(vit, embedding_dim=8), TextEncoder(TINY_GPT2, embedding_dim=8))
    index = torch.arange(batch_size)
    batch = {
        "image": torch.randn(batch_size, 3, 112, 112),
        "caption_index": index,
        "caption_id": index,
        "input_ids": torch.randint(1, 768, (batch_size, 6)),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0]]).expand(batch_size, -1),
    }
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[batch],
        network=network,
        optimizer=torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1),
        loss_function=ContrastiveLoss(),
        prepare_batch=PrepareImageText(),
        iteration_update=TrainingStep(chunk_size=chunk_size),
        decollate=False,
    )
    before = megabytes("VmHWM")
    trainer.run()
    print(megabytes("VmHWM") - before, flush=True)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        size, _, chunk = argument.partition("/")
        if (child := os.fork()) == 0:
            main(int(size), int(chunk) if chunk else None)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"{argument} failed")
