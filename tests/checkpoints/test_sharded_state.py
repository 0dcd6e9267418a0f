"""Divided training states: written by two processes, read by two, four and one."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from cleft_bundle.checkpoints.sharded_state import is_sharded, read_shards, remove_others, write_shards
from cleft_bundle.checkpoints.trained_state import TrainedState
from cleft_bundle.distributed import at_first, whole
from cleft_bundle.engines.strategy import distribute
from cleft_bundle.errors import BundleError
from tests import processes
from tests.engines.test_strategy import build


def trained(strategy, steps):
    """A network and its optimizer, which has groups of its own as layer decay makes them, after some steps."""
    network = distribute(build(peft="full"), strategy)
    sides = [[p for n, p in network.named_parameters() if p.requires_grad and ("image" in n) == of] for of in (0, 1)]
    optimizer = torch.optim.AdamW(
        [{"params": sides[0], "lr": 1e-3, "initial_lr": 5e-3}, {"params": sides[1], "lr": 2e-3, "weight_decay": 0.1}]
    )
    for step in range(steps):
        for group in optimizer.param_groups:
            for parameter in group["params"][1:]:  # one has none, as a token that pooling leaves out
                parameter.grad = torch.full_like(parameter, 0.1 + step)
        optimizer.step()
    return network, optimizer


def content(weights, optimizer):
    state = optimizer.state_dict()
    return whole({"weights": weights, "state": state["state"], "groups": state["param_groups"]})


def worker(rank, world, port, folder, writes):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    network, optimizer = trained("fsdp", 2 * writes)
    weights = TrainedState(network).state_dict()["weights"]
    assert is_sharded(network, Path(folder, "made"))
    if writes:
        write_shards(Path(folder, "shards"), weights, network, optimizer)
    else:
        read_shards(Path(folder, "shards"), weights, network, optimizer)
        with pytest.raises(BundleError, match=r"resume: .*none cannot be read"):
            read_shards(Path(folder, "none"), weights, network, optimizer)
    at = at_first(weights)
    assert all((value is None) == (rank > 0) for value in at.values() if not isinstance(value, torch.Tensor))
    found = content(weights, optimizer)
    if rank == 0:
        assert all(torch.equal(at[name], value) for name, value in found["weights"].items())
        torch.save(found, f"{folder}/{'written' if writes else world}.pt")
    dist.destroy_process_group()


def same(first, second):
    flat, shape = torch.utils._pytree.tree_flatten(first)
    others, other = torch.utils._pytree.tree_flatten(second)
    return shape == other and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(flat, others, strict=True)
    )


@pytest.mark.slow
def test_what_two_processes_write_any_number_reads_bit_for_bit(tmp_path, free_port):
    processes.spawn(worker, (2, free_port, str(tmp_path), True), 2)
    written = torch.load(tmp_path / "written.pt", weights_only=True)
    assert len(written["state"]) == len([v for v in written["weights"].values() if v.is_floating_point()]) - 2
    for world in (2, 4):
        processes.spawn(worker, (world, free_port, str(tmp_path), False), world)
        assert same(torch.load(tmp_path / f"{world}.pt", weights_only=True), written)

    network, optimizer = trained("auto", 0)
    weights = TrainedState(network).state_dict()["weights"]
    assert not same(weights, written["weights"])
    read_shards(tmp_path / "shards", weights, network, optimizer)
    assert same(content(weights, optimizer), written)
    assert not is_sharded(network, tmp_path)

    (part,) = (tmp_path / "shards").glob("__1*")
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(BundleError, match=r"resume: .*shards cannot be read: "):
        read_shards(tmp_path / "shards", weights, network, optimizer)


def test_only_earlier_shards_of_the_run_are_removed(tmp_path):
    for name in ("training_3", "training_6", "other_3", "training_x.pt"):
        (tmp_path / name).mkdir()
    (tmp_path / "training_9").touch()
    remove_others(tmp_path / "training_6", "training_*/")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other_3", "training_6", "training_9"]
