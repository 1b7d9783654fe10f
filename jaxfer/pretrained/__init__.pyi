from .catalogue import CATALOGUE, Weights, weights_at_hand
from .load import install_command, load_pretrained, save_state_dict
from .state_dicts import from_state_dict, to_state_dict
from .torch_files import read_torch

__all__ = [
    "CATALOGUE",
    "Weights",
    "from_state_dict",
    "install_command",
    "load_pretrained",
    "read_torch",
    "save_state_dict",
    "to_state_dict",
    "weights_at_hand",
]
