from pathlib import Path

from setuptools import find_packages, setup

PIMD = ["ipi>=3.3,<4; python_version >= '3.10'"]  # one package in Python, of which only the tests need anything

setup(
    name="dimenet-tf",
    version="0.1.0",
    description="Directional message-passing networks for molecules in TensorFlow",
    long_description=Path(__file__).with_name("README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.9,<3.12",
    packages=[*find_packages(include=["dimenet_tf", "dimenet_tf.*"]), "dimenet_tf.pretrained"],
    package_dir={"dimenet_tf.pretrained": "pretrained"},
    package_data={"dimenet_tf.data": ["sample/*"], "dimenet_tf.pretrained": ["*/*"]},
    install_requires=[
        "tensorflow==2.15.1",  # the last that TensorFlow Addons' optimizers work with
        "tensorflow-addons==0.23.0",
        "numpy>=1.23.5,<2",
        "scipy>=1.10",
        "sympy>=1.11",
        "sacred>=0.8.4",
        "setuptools<81",  # sacred imports pkg_resources
        "h5py>=3.8",
        "tensorboard>=2.15,<2.16",
        "PyYAML>=6",
        "ase>=3.22",
        "tensorflow-serving-api==2.15.1",  # messages of TensorFlow Serving: warm-up requests
        "matplotlib>=3.7",
        "tqdm>=4.64",
        "pooch>=1.7",
        "requests>=2.28",
        "filelock>=3.12",
    ],
    extras_require={
        "dev": ["pytest>=7.4", "pytest-xdist>=3.3", "hypothesis>=6.80", "ruff==0.17.5", "pre-commit>=3.5", *PIMD],
        "pimd": PIMD,
        # makes dimenet_tf/data/sample; never needed to use it
        "sample": ["rdkit==2026.9.1", "tblite==0.8.0"],
        "mongo": ["pymongo>=4"],
    },
)
