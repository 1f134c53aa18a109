"""Draw the pictures of the documentation from a finished run of configs/dimenet.yaml: `python docs/pictures.py RUN`."""

import shutil
import sys
from pathlib import Path

from dimenet_tf.plots.architecture import architecture

DOCS, PLOTS = Path(__file__).parent, Path(sys.argv[1]) / "plots"
architecture(DOCS / "architecture.png")
shutil.copy(PLOTS / "learning_curve.png", DOCS / "learning_curve.png")
