"""Oxford Flowers 102, as its archive and two label files are published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainables.data import templates
from trainables.data.images import Split
from trainables.data.listing import Parts
from trainables.data.sets.known import known
from trainables.data.tables import Table, in_range, read_mat, tabled
from trainables.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FOLDER = "flowers-102"
CLASSES = (
    "pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea", "english marigold",
    "tiger lily", "moon orchid", "bird of paradise", "monkshood", "globe thistle", "snapdragon",
    "colt's foot", "king protea", "spear thistle", "yellow iris", "globe flower", "purple coneflower",
    "peruvian lily", "balloon flower", "giant white arum lily", "fire lily", "pincushion flower",
    "fritillary", "red ginger", "grape hyacinth", "corn poppy", "prince of wales feathers",
    "stemless gentian", "artichoke", "sweet william", "carnation", "garden phlox", "love in the mist",
    "mexican aster", "alpine sea holly", "ruby-lipped cattleya", "cape flower", "great masterwort",
    "siam tulip", "lenten rose", "barbeton daisy", "daffodil", "sword lily", "poinsettia",
    "bolero deep blue", "wallflower", "marigold", "buttercup", "oxeye daisy", "common dandelion", "petunia",
    "wild pansy", "primula", "sunflower", "pelargonium", "bishop of llandaff", "gaura", "geranium",
    "orange dahlia", "pink and yellow dahlia", "cautleya spicata", "japanese anemone", "black-eyed susan",
    "silverbush", "californian poppy", "osteospermum", "spring crocus", "bearded iris", "windflower",
    "tree poppy", "gazania", "azalea", "water lily", "rose", "thorn apple", "morning glory",
    "passion flower", "lotus", "toad lily", "anthurium", "frangipani", "clematis", "hibiscus", "columbine",
    "desert-rose", "tree mallow", "magnolia", "cyclamen", "watercress", "canna lily", "hippeastrum",
    "bee balm", "air plant", "foxglove", "bougainvillea", "camellia", "mallow", "mexican petunia",
    "bromelia", "blanket flower", "trumpet creeper", "blackberry lily",
)  # fmt: skip
"""In the order of the labels, as CLIP's prompts have them; three differ from torchvision's."""
VARIABLES: dict[Split, str] = {"train": "trnid", "validation": "valid", "test": "tstid"}


@known(
    "flowers",
    archive="102flowers.tgz, with imagelabels.mat and setid.mat,",
    into=FOLDER,
    layout=(f"{FOLDER}/jpg", f"{FOLDER}/imagelabels.mat", f"{FOLDER}/setid.mat"),
    templates=templates.FLOWERS,
)
def flowers(root: Path) -> Parts:
    """Has a validation split of its own. Images and classes are numbered from 1."""
    folder = root / FOLDER
    (label_of,) = read_mat(folder / "imagelabels.mat", "labels")
    sets = read_mat(folder / "setid.mat", *VARIABLES.values())

    def table(ids: NDArray[np.int64]) -> Table:
        if len(ids) and not 1 <= ids.min() <= ids.max() <= len(label_of):
            raise DataError(
                f"{folder / 'setid.mat'} has images beyond the {len(label_of)} labels in imagelabels.mat"
            )
        labels = in_range(folder / "imagelabels.mat", label_of[ids - 1].astype("int64") - 1, CLASSES)
        return Table(folder / "setid.mat", [f"image_{number:05d}.jpg" for number in ids], labels)

    tables = {split: table(ids.astype("int64")) for split, ids in zip(VARIABLES, sets, strict=True)}
    return tabled(folder / "jpg", tables, CLASSES)
