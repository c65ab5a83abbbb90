"""What pyproject.toml cannot say: configs/ ships as gmsa.configs, and how an editable install is found."""

from setuptools import find_packages, setup
from setuptools.command.editable_wheel import editable_wheel


class EditableWheel(editable_wheel):
    """Installs the checkout as an entry of ``sys.path``.

    For packages that do not lie side by side setuptools installs an import hook instead, and that hook loses to any
    folder called ``gmsa`` in the working directory, such as the clone itself.
    """

    def finalize_options(self) -> None:
        self.distribution.packages.remove("gmsa.configs")  # gmsa.config.packaged finds it in the checkout
        self.distribution.package_dir = {"": "."}
        super().finalize_options()


setup(
    packages=[*find_packages(include=["gmsa", "gmsa.*"]), "gmsa.configs"],
    package_dir={"gmsa.configs": "configs"},
    cmdclass={"editable_wheel": EditableWheel},
)
