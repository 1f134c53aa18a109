"""Draw the pictures of the README: `python docs/pictures.py RUN`, RUN a finished run of configs/dimenet.yaml."""

import shutil
import sys
from pathlib import Path

from dimenet_tf.plots.architecture import architecture

DOCS, PLOTS = Path(__file__).parent, Path(sys.argv[1]) / "plots"
architecture(DOCS / "architecture.png")
shutil.copy(PLOTS / "learning_curve.png", DOCS / "learning_curve.png")
