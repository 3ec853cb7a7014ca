"""Deprecated names."""

from keras_resnet.trained.network import Network, open_network


class Run:
    """The old `training.Run`, replaced by `trained.Network`."""

    def __init__(self, network):
        self.network, self.folder = network, network.run.folder
        self.class_names, self.preprocessing = network.class_names, network.preprocessing

    @classmethod
    def open(cls, folder):
        """Same as `Network.from_run`."""
        return cls(Network.from_run(folder))

    def model(self):
        """Same as `Network.model`."""
        return self.network.model

    def predict(self, images):
        """Same as `Network.probabilities`."""
        return self.network.probabilities(images)

    def name_files(self, files, *, top=5):
        """Same as `Network.predict`, as a dictionary."""
        return dict(self.network.predict(files, top=top))


def explain(image, output=None, *, run=None, model=None, weights=None, **options):
    """Same as `Network.explain`."""
    return open_network(run, model, weights).explain(image, output, **options)


def export_network(format, output=None, *, run=None, model=None, weights=None, **options):
    """Same as `Network.export`."""
    return open_network(run, model, weights).export(format, output, **options)
