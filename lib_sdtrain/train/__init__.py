"""Training: the loop, what it is made of, and what it leaves behind. Calling the package trains."""
from lib_sdtrain.entry import make_callable

make_callable(__name__, "lib_sdtrain.train.loop", "train")
