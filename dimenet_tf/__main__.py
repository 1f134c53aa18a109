"""`python -m dimenet_tf` is the command `dimenet-tf`."""

from dimenet_tf.commands import main

if __name__ == "__main__":
    main()
