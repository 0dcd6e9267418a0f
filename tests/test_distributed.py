import os

import ignite.distributed as idist
import pytest
import torch
import torch.distributed as dist
from torch.distributed.nn import all_gather

from cleft_bundle.distributed import (
    from_first,
    gather_lists,
    gather_uneven,
    own_device,
    rank,
    start_processes,
    wait_for_all,
    world_size,
)
from cleft_bundle.errors import BundleError
from cleft_bundle.losses.gather import gather_rows
from tests import processes

NAMES = [[], ["a\tb.dcm", "thorax\udcfc.dcm", ""]]


def test_each_process_of_torchrun_takes_its_own_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert own_device() == torch.device("cuda", 0)
    with pytest.raises(BundleError, match="goes with torchrun"):
        own_device(torchrun=True)
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device() == own_device(torchrun=True) == torch.device("cuda", 1)


def test_without_a_gpu_it_is_the_cpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert own_device() == torch.device("cpu")


def test_one_process_has_all_there_is():
    assert (rank(), world_size(), from_first("id")) == (0, 1, "id")
    assert gather_lists(["a", "b"]) == ["a", "b"]
    assert gather_uneven(torch.arange(3)).tolist() == [0, 1, 2]
    wait_for_all()


def worker(number, port, folder):
    """What a process of torchrun does that one task of SLURM has started."""
    slurm = {"SLURM_JOB_ID": "7", "SLURM_LOCALID": "0"}
    torchrun = {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2"}
    os.environ.update(**slurm, **torchrun, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    start_processes()
    rows = torch.randn(3, 2, generator=torch.Generator().manual_seed(number), requires_grad=True)
    weights = torch.arange(12.0).view(6, 2)
    gradients = []
    for everybody in (gather_rows(rows), torch.cat(all_gather(rows))):
        (everybody.square() * weights).sum().backward()
        gradients.append(rows.grad)
        rows.grad = None
    found = {
        "place": (rank(), world_size(), idist.get_local_rank(), os.environ["LOCAL_RANK"]),
        "from_first": from_first(f"run {number}"),
        "names": gather_lists(NAMES[number]),
        "uneven": [gather_uneven(torch.full((number + 1, 2), number, dtype=kind)) for kind in (torch.int64, None)],
        "gradients": gradients,
    }
    wait_for_all()
    torch.save(found, f"{folder}/{number}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_share_what_they_have(tmp_path, free_port):
    processes.spawn(worker, (free_port, str(tmp_path)), 2)
    for number in range(2):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert found["place"] == (number, 2, number, str(number))
        assert found["from_first"] == "run 0"
        assert found["names"] == NAMES[1]
        for rows in found["uneven"]:
            assert rows.tolist() == [[0, 0], [1, 1], [1, 1]]
        torch.testing.assert_close(*found["gradients"], atol=0, rtol=0)
