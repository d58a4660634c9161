"""SD Train: train, merge and sample Stable Diffusion checkpoints.

`from lib_sdtrain import train, merge, sample`: each takes the settings object of its command, yields events and
can be cancelled by a token. Importing costs nothing; the engine loads when it is called.
"""

__version__ = "0.1.0"
