"""`python -m keras_resnet`: the command `keras-resnet`."""

from keras_resnet_cli import main

if __name__ == "__main__":
    main()
