"""`python -m keras_resnet_cli`."""

from keras_resnet_cli import main

if __name__ == "__main__":
    main()
