"""Items of a datalist for the tests of what is done with them."""

from cleft_bundle.data import pseudonym


def item(picture, number, patient, label=(1.0, 0.0), split=None, caption="c"):
    return {
        "image": picture,
        "name": f"{number:04}.png",
        "caption": caption,
        "label": list(label),
        "patient_id": pseudonym(f"patient {patient}"),
        "split": split,
    }


def named(picture, train=20, **others):
    counts = {"train": train, **others}
    names = [split for split, count in counts.items() for _ in range(count)]
    return [item(picture, n, n, (float(n % 2), float(n % 2 == 0)), split) for n, split in enumerate(names)]
