"""Tables: Parquet files, folders saved by `datasets`, and data sets of the Hugging Face hub."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from core.data.records import HubOptions, Record, RowError
from core.errors import DataError, nearest


def read_parquet(path: str) -> Iterator[Record | RowError]:
    """Rows of a Parquet file, in batches; `where` counts rows from 1. Raises DataError where it is damaged."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield Record(f"{path}:{number}", row)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: no readable Parquet file ({error}).", "Write it again, or convert it to JSONL.") from error


def read_dataset(place: str, hub: HubOptions) -> Iterator[Record | RowError]:
    """Rows of a saved folder or of a hub data set. What exists on the disk is never asked of the hub.

    Raises:
        DataError: no such data set, split, configuration or revision, no network, a folder of another kind.
    """
    data = _load_folder(place) if os.path.isdir(place) else _load_hub(place, hub)
    if isinstance(data, Mapping):
        data = _pick_split(place, data, hub.split)
    name = f"{place}[{hub.split}]"
    for number, row in enumerate(data, start=1):
        yield Record(f"{name}:{number}", row)


def _load_folder(place: str) -> Any:
    import datasets

    if not any(os.path.isfile(os.path.join(place, name)) for name in ("state.json", "dataset_dict.json")):
        hint = f"For a folder of files give a glob, such as {os.path.join(place, '*.jsonl')}"
        raise DataError(f"{place}: a folder that was not saved by datasets (no state.json, no dataset_dict.json).", hint)
    try:
        return datasets.load_from_disk(place)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{place}: the saved data set cannot be read ({error}).", "Save it again.") from error


def _load_hub(name: str, hub: HubOptions) -> Any:
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        return datasets.load_dataset(name, hub.config_name, split=hub.split, revision=hub.revision)
    except (OSError, ValueError, DatasetsError) as error:
        hint = "Check data.path, data.split, data.config_name, data.revision and the network."
        raise DataError(f"{name}: cannot be loaded from the hub ({error}).", hint) from error


def _pick_split(place: str, data: Mapping[str, Any], split: str) -> Any:
    if split not in data:
        known = ", ".join(data)
        raise DataError(f'{place}: no split "{split}"; it has {known}.{nearest(split, data)}', "Set data.split.")
    return data[split]
