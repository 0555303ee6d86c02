"""The store of encoded completions: whole shards, keys, deletion, one writer. No torch."""

import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from training.sampling.feature_store import Encoding, FeaturesError, FeatureStore, text_key

ENCODING = Encoding("abc", 2, "mean", 1024)


def vectors(numbers: range, scale: float = 1.0) -> dict[bytes, numpy.ndarray]:
    return {
        text_key([{"role": "user", "content": "Hi"}], str(number)): numpy.full(4, scale * number, dtype=numpy.float32)
        for number in numbers
    }


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.create(tmp_path / "features", ENCODING)


def test_what_is_added_is_read_back_and_what_is_forgotten_is_in_no_file(store):
    store.add(vectors(range(3)))
    store.add(vectors(range(3, 6)))
    again = FeatureStore(store.folder)
    assert again.encoding == ENCODING
    found = again.get(vectors(range(2, 9)))
    assert {key: vector.tolist() for key, vector in found.items()} == {
        key: vector.tolist() for key, vector in vectors(range(2, 6)).items()
    }
    assert store.forget(vectors(range(2, 4))) == 2
    assert store.keys() == set(vectors(range(2))) | set(vectors(range(4, 6)))
    gone = next(iter(vectors(range(2, 3))))
    assert not [path for path in store.shards.iterdir() if gone in path.read_bytes()]
    store.forget(vectors(range(6)))
    assert list(store.shards.iterdir()) == [] and store.n_bytes() == 0


def test_large_values_are_not_cut_to_what_half_a_float_holds(store):
    large = vectors(range(1, 3), scale=1e6)
    store.add(large)
    assert store.get(large)[next(iter(large))].tolist() == [1e6] * 4


def test_many_small_shards_become_one_and_nothing_is_lost(store):
    for number in range(20):
        store.add(vectors(range(number, number + 1)))
    store.join_small()
    assert len(list(store.shards.iterdir())) == 1
    assert store.keys() == set(vectors(range(20)))
    assert store.damaged() == []


def test_a_shard_that_changed_is_named(store):
    path = store.add(vectors(range(3)))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert store.damaged() == [path.name]


def test_features_of_something_else_are_refused_with_what_differs(store):
    with pytest.raises(FeaturesError, match="of layer 2, but layer 3 was asked for"):
        FeatureStore.create(store.folder, Encoding("abc", 3, "mean", 1024))
    with pytest.raises(FeaturesError, match="encode them first"):
        FeatureStore(store.folder / "elsewhere")


def test_a_second_writer_is_refused_until_the_first_is_gone_however_it_went(store):
    held = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys, pathlib; from training.sampling.feature_store import FeatureStore\n"
            "with FeatureStore(pathlib.Path(sys.argv[1])).writing():\n print('on', flush=True); sys.stdin.read()",
            str(store.folder),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert held.stdout.readline() == b"on\n"
    (store.shards / ".half.tmp").write_bytes(b"half a shard")
    with pytest.raises(FeaturesError, match="Another process is writing"), store.writing():
        pass
    held.kill()
    held.wait()
    with store.writing():
        assert list(store.shards.iterdir()) == []
    held.stdin.close()
    held.stdout.close()
