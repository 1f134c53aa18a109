"""Configurations of the blocks of a model."""

from dimenet_tf.models import build_model
from helpers.models import SMALL


def test_block_configurations_round_trip(model_name):
    model = build_model(model_name, **SMALL[model_name], separate_output_blocks=True, num_targets=2)
    for block in (model.emb_block, model.int_blocks[0], model.output_blocks[0], model.rbf_layer, model.sbf_layer):
        assert type(block).from_config(block.get_config()).get_config() == block.get_config()
