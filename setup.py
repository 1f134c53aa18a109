import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "dimenet_tf/version.py").read_text(), re.MULTILINE)[1]

# Two stacks: the last TensorFlow that Addons' optimizers work with, and a newer one with Keras 2 as tf-keras.
OLDER, NEWER = "python_version < '3.12'", "python_version >= '3.12'"
TENSORFLOW = [
    f"tensorflow==2.15.1; {OLDER}",
    f"tensorflow-addons==0.23.0; {OLDER}",
    f"tensorboard>=2.15,<2.16; {OLDER}",
    f"numpy>=1.23.5,<2; {OLDER}",
    f"tensorflow==2.21.*; {NEWER}",
    f"tf-keras==2.21.*; {NEWER}",
    f"tensorboard==2.21.*; {NEWER}",
    f"numpy>=2; {NEWER}",
]
CUDA = [f"tensorflow[and-cuda]==2.15.1; {OLDER}", f"tensorflow[and-cuda]==2.21.*; {NEWER}"]
PIMD = ["ipi>=3.3,<4; python_version >= '3.10'"]
PHONONS = ["phonopy>=4.8,<5; python_version >= '3.10'"]  # tests alone; wheels for Python 3.9 end at 2.9
# messages of TensorFlow Serving, for the warm-up requests in exported models
SERVING = [f"tensorflow-serving-api==2.15.1; {OLDER}", f"tensorflow-serving-api==2.21.*; {NEWER}"]
MONGO = ["pymongo>=4"]
OC20 = ["lmdb>=1.4", "ase-db-backends>=0.10"]
ALL = [*PIMD, *SERVING, *MONGO, *OC20]
TOOLS = [
    "pytest>=7.4",
    "pytest-xdist>=3.7",
    "hypothesis>=6.80",
    "ruff==0.17.5",
    "mypy==2.4.1; python_version >= '3.11'",
    "build>=1",
    "pre-commit>=3.5",
    "sybil>=6",
]
DOCS = ["sphinx>=7.4", "myst-nb>=1.1", "furo>=2024.8", "sphinx-copybutton>=0.5.2", "latex2mathml>=3.77"]

setup(
    name="dimenet-tf",
    version=VERSION,
    description="Directional message-passing networks for molecules in TensorFlow",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    keywords="molecules, graph neural networks, force fields, DimeNet, GemNet, PaiNN, SchNet, SphereNet, Keras",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: MIT License",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: {version}" for version in ("3", "3.9", "3.10", "3.11", "3.12", "3.13")),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Chemistry",
        "Topic :: Scientific/Engineering :: Physics",
        "Typing :: Typed",
    ],
    python_requires=">=3.9,<3.14",
    packages=[*find_packages(include=["dimenet_tf", "dimenet_tf.*"]), "dimenet_tf.configs", "dimenet_tf.pretrained"],
    package_dir={"dimenet_tf.configs": "configs", "dimenet_tf.pretrained": "pretrained"},
    package_data={
        "dimenet_tf": ["py.typed"],
        "dimenet_tf.configs": ["*.yaml", "paper/*.yaml"],
        "dimenet_tf.data": ["sample/*"],
        "dimenet_tf.pretrained": ["*/*"],
        "dimenet_tf.report": ["static/*"],
    },
    entry_points={"console_scripts": ["dimenet-tf = dimenet_tf.commands:main"]},
    install_requires=[
        *TENSORFLOW,
        "scipy>=1.10",
        "sympy>=1.11",
        "sacred>=0.8.4",
        "setuptools<80.9",  # sacred imports pkg_resources, which newer ones warn about
        "h5py>=3.8",
        "ase>=3.26",  # the first with MTKNPT
        "vesin>=0.3.8",  # neighbors in periodic cells
        "matplotlib>=3.7",
        "PyYAML>=6",
        "click>=8.1",
        "tqdm>=4.64",
        "pooch>=1.7",
        "requests>=2.28",
        "filelock>=3.12",
    ],
    extras_require={
        "cuda": CUDA,
        "pimd": PIMD,
        "serving": SERVING,
        "mongo": MONGO,
        "oc20": OC20,
        "all": ALL,
        "dev": [*ALL, *PHONONS, *TOOLS],
        "docs": DOCS,
        # makes dimenet_tf/data/sample; never needed to use it
        "sample": ["rdkit==2026.9.1", "tblite==0.8.0"],
    },
)
