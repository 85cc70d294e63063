"""The bundled demo model: the small world it knows, the text it was trained on, and the scripts that trained it.

`demo/checkpoint` holds the model in Hugging Face layout and `demo/draft` its draft model; both are package data.
Only the training modules import torch, so the package can be imported wherever brim is installed.
"""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
DRAFT = Path(__file__).parent / "draft"
