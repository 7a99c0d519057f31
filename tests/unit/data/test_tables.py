import pytest

from core.data.records import HubOptions, RowError, read_records
from core.errors import DataError

ROWS = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]


def test_parquet_rows_are_counted_from_one(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    found = list(read_records(str(path)))
    assert [r.data for r in found] == ROWS
    assert found[1].where == f"{path}:2"


def test_damaged_parquet_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"a\.parquet: no readable Parquet file"):
        list(read_records(str(path)))


def test_saved_dataset_and_its_splits(tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = str(tmp_path / "saved")
    data = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(folder)
    assert [r.data for r in read_records(folder, HubOptions("test"))] == ROWS[1:]
    first = next(iter(read_records(folder)))
    assert not isinstance(first, RowError)
    assert first.where == f"{folder}[train]:1"
    with pytest.raises(DataError, match=r'no split "tests"; it has train, test\. Did you mean "test"\?'):
        list(read_records(folder, HubOptions("tests")))


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(DataError, match="was not saved by datasets"):
        list(read_records(str(tmp_path)))
