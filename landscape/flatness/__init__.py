"""How much the loss rises around a minimum.

The folder is not called `sharpness`: that name is the function's, `landscape.sharpness`.
"""
