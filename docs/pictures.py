"""Draw the pictures of the documentation from a finished run of configs/dimenet.yaml: `python docs/pictures.py RUN`."""

import shutil
import sys
from pathlib import Path

from dimenet_tf.layers.pictures import directional_diagram
from dimenet_tf.plots.models import draw_diagram

DOCS, PLOTS = Path(__file__).parent, Path(sys.argv[1]) / "plots"
draw_diagram(directional_diagram("n", "angle (SBF)"), "", DOCS / "architecture.png")
shutil.copy(PLOTS / "learning_curve.png", DOCS / "learning_curve.png")
