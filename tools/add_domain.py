"""Record the domain of a model that was trained before domains were: `python tools/add_domain.py FOLDER ...`.

FOLDER is a run folder or a pretrained model, with its config.yaml and split.npz. The training molecules are read again,
their checksum is compared with that in data.json where there is one, and `domain` is added to predictor.json.
"""

from __future__ import annotations

import json
import sys

from dimenet_tf.commands.console import import_tensorflow, one_line_errors

import_tensorflow()

from dimenet_tf.config.build import data_config, domain_labels
from dimenet_tf.config.schema import resolve
from dimenet_tf.data.dataset import load_container, load_dataset
from dimenet_tf.errors import UserError
from dimenet_tf.predictor import load
from dimenet_tf.predictor.domain import Domain
from dimenet_tf.runs.catalog import DESCRIPTION, find_folder, find_predictor
from dimenet_tf.runs.files import replace_text
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.structures.splits import Split


@one_line_errors()
def main() -> None:
    for name in sys.argv[1:]:
        folder, path = RunFolder(find_folder(name)), find_predictor(name) / DESCRIPTION
        config = data_config(resolve(folder.read_config()))
        container = load_container(config)
        if folder.data_file.exists() and folder.read_data_description()["sha256"] != container.checksum():
            raise UserError(f"{name}: the data are not those that it was trained on (checksum in data.json)")
        dataset = load_dataset(config, Split.load(folder.split_file), container)
        predictor = load(name)
        training = container.select(dataset.split.train)
        domain = Domain.of(training, predictor.model.cutoff, domain_labels(dataset))
        description = json.loads(path.read_text())
        replace_text(path, json.dumps({**description, "domain": domain.get_config()}, indent=1))
        print(f"{path}: {json.dumps(domain.describe())}")


if __name__ == "__main__":
    main()
