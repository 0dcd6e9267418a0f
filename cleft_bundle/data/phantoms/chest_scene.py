"""Drawing of one frontal chest phantom.

Body coordinates: x from -1 (image left, the patient's right) to 1, y from -1 (neck) to 1 (abdomen). A side is -1 for
the patient's right and 1 for the left. Sizes follow a textbook frontal radiograph only as far as a reader recognises
what is meant; the findings are drawn plainly on purpose, so that a very small network can learn them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cleft_bundle.data.phantoms.shapes import Array, Pose, blob, box, ellipse, inside, radius, stroke, texture

DRAWN = (
    "Cardiomegaly",
    "Edema",
    "Consolidation",
    "Atelectasis",
    "Pleural Effusion",
    "Pneumothorax",
    "Support Devices",
)
RIGHT, LEFT = -1, 1


@dataclass(frozen=True)
class Anatomy:
    """Anatomy that stays the same in all images of one phantom patient (body coordinates)."""

    width: float  # of the thorax, 1.0 on average
    apex: float  # y of the lung apices
    dome: float  # y of the right diaphragm dome
    heart: float  # half width of the normal heart
    knob: float  # radius of the aortic knob
    rib_spacing: float
    rib_density: float
    clavicle: float  # y of the clavicles' inner ends

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Anatomy":
        """One phantom patient's body."""
        return cls(
            width=rng.uniform(0.96, 1.04),
            apex=rng.uniform(-0.78, -0.73),
            dome=rng.uniform(0.42, 0.50),
            heart=rng.uniform(0.29, 0.335),
            knob=rng.uniform(0.07, 0.1),
            rib_spacing=rng.uniform(0.135, 0.155),
            rib_density=rng.uniform(0.05, 0.09),
            clavicle=rng.uniform(-0.62, -0.57),
        )


class ChestScene:
    """One chest, built up in layers: `density` [H, W] is the result, `boxes` says where the findings lie.

    Args:
        rng: draws all that varies from image to image.
        anatomy: of the phantom patient.
        pose: of the body in the picture; also sets H and W.
        findings: name of each finding that is there -> strength, 1.0 for clear and less for uncertain.
    """

    def __init__(self, rng: np.random.Generator, anatomy: Anatomy, pose: Pose, findings: Mapping[str, float]) -> None:
        self.rng, self.anatomy, self.findings = rng, anatomy, findings
        self.x, self.y = pose.grid()
        self.depth = np.abs(self.x)
        self.boxes: list[tuple[str, tuple[int, int, int, int]]] = []
        side = int(rng.choice([RIGHT, LEFT]))
        # An effusion would hide a plate at the same base, and the heart hides part of the left one.
        self.effused = ((side, -side) if rng.random() < 0.3 else (side,)) if "Pleural Effusion" in findings else ()
        self.plate_side = -side if len(self.effused) == 1 else RIGHT
        self.lungs = {s: self._lung(s) for s in (RIGHT, LEFT)}
        self.shadow = self._mediastinum()
        self.air = {s: lung * (1 - self.shadow) for s, lung in self.lungs.items()}
        self.fill = np.zeros_like(self.x)  # share of the lung's air that something dense has replaced
        self.extra = np.zeros_like(self.x)  # density that is added last
        self.free = np.zeros_like(self.x)  # air without lung in it
        for name, draw in (
            ("Edema", self._edema),
            ("Consolidation", self._consolidation),
            ("Atelectasis", self._atelectasis),
            ("Pneumothorax", self._pneumothorax),
            ("Pleural Effusion", self._effusion),
            ("Support Devices", self._devices),
        ):
            if name in findings:
                draw(findings[name])
        self.density = self._compose()

    def _mark(self, name: str, mask: Array, threshold: float = 0.5) -> None:
        found = box(mask, threshold)
        if found is not None:
            self.boxes.append((name, found))

    def _replace(self, mask: Array, strength: float) -> None:
        self.fill = np.maximum(self.fill, mask * np.float32(strength))

    def _lung(self, side: int) -> Array:
        width, apex = self.anatomy.width, self.anatomy.apex
        field = ellipse(self.x, self.y, (side * 0.42 * width, apex + 0.82), (0.335 * width, 0.82), power=2.3)
        dome = self.anatomy.dome + (0.05 if side == LEFT else 0.0)
        if "Atelectasis" in self.findings and side == self.plate_side:
            dome -= 0.09 * self.findings["Atelectasis"]  # volume loss
        across = (self.depth - np.float32(0.34)) / np.float32(0.4)
        return field * inside(self.y - np.float32(dome) - np.float32(0.2) * across * across)

    def _mediastinum(self) -> Array:
        """Heart, great vessels and spine: what the lungs end at."""
        big = self.findings.get("Cardiomegaly", 0.0)
        half = self.anatomy.heart * self.anatomy.width * (1 + 0.5 * big)
        heart = ellipse(
            self.x, self.y, (0.1 + 0.04 * big, self.anatomy.dome - 0.16), (half, 0.27 + 0.06 * big), angle=18, edge=0.03
        )
        if big:
            self._mark("Cardiomegaly", heart)
        vessels = inside(self.depth - np.float32(0.13) - np.float32(0.03) * self.y, 0.03)
        knob = ellipse(self.x, self.y, (0.12, -0.36), (self.anatomy.knob, self.anatomy.knob), edge=0.03)
        return np.maximum(np.maximum(heart, vessels), knob)

    def _edema(self, strength: float) -> None:
        mottled = 0.85 + 0.15 * texture(self.rng, self.x.shape, 5)
        for side in (RIGHT, LEFT):
            wing = blob(self.x, self.y, (side * 0.32, -0.03), (0.22, 0.32), angle=side * 8)
            self._replace(np.clip(wing * mottled, 0, 1), 0.8 * strength)
            self._mark("Edema", wing * self.air[side])
            for y in np.arange(0.1, 0.4, 0.06):  # Kerley B lines at the lateral bases
                line = [(side * 0.58, y), (side * 0.74, y + self.rng.uniform(-0.01, 0.01))]
                self._replace(stroke(self.x, self.y, line, 0.014), 0.5 * strength)

    def _consolidation(self, strength: float) -> None:
        side = int(self.rng.choice([RIGHT, LEFT]))
        centre = side * self.rng.uniform(0.42, 0.5), self.rng.uniform(-0.4, -0.3)
        patch = blob(self.x, self.y, centre, (self.rng.uniform(0.15, 0.19), self.rng.uniform(0.15, 0.2)))
        ragged = inside(0.45 - patch - 0.07 * texture(self.rng, self.x.shape, 6), 0.3) * self.lungs[side]
        self._mark("Consolidation", ragged * self.air[side])
        for turn in (-0.5, 0.1, 0.6):  # air bronchograms fan out from the hilum
            far = centre[0] + side * 0.12 * np.cos(turn), centre[1] + 0.14 * np.sin(turn)
            near = centre[0] - side * 0.14, centre[1] + 0.05
            ragged = ragged * (1 - 0.6 * stroke(self.x, self.y, [near, far], 0.018))
        self._replace(ragged, 0.92 * strength)

    def _atelectasis(self, strength: float) -> None:
        side = self.plate_side
        low = -0.02 if side in self.effused else 0.16
        plates = np.zeros_like(self.x)
        for y in (low, low + 0.12):
            tilt = self.rng.uniform(0.02, 0.07)
            line = [(side * 0.28, y + tilt), (side * 0.74, y - tilt)]
            plates = np.maximum(plates, stroke(self.x, self.y, line, self.rng.uniform(0.045, 0.055), 0.02))
        self._replace(plates, strength)
        self._mark("Atelectasis", plates * self.air[side])

    def _pneumothorax(self, strength: float) -> None:
        side = int(self.rng.choice([RIGHT, LEFT]))
        width, apex = self.anatomy.width, self.anatomy.apex
        centre, axes = (side * 0.33 * width, apex + 0.92), (0.27 * width, 0.7)
        distance = (radius(self.x, self.y, centre, axes, power=2.2) - 1) * np.float32(axes[0])
        rim = self.air[side] * inside(-distance) * inside(self.y - np.float32(0.35), 0.2)
        self.free = rim * np.float32(strength)
        self._replace(self.lungs[side] * inside(distance), 0.25 * strength)  # the collapsed lung is denser
        line = inside(np.abs(distance) - np.float32(0.012), 0.012) * self.air[side]
        self.extra += np.float32(0.16 * strength) * line * inside(self.y - np.float32(0.35), 0.2)
        self._mark("Pneumothorax", rim)

    def _effusion(self, strength: float) -> None:
        for side in self.effused:
            level = self.rng.uniform(0.1, 0.2) + 0.12 * (1 - strength)
            lateral = np.clip((self.depth - np.float32(0.15)) / np.float32(0.6), 0, 1)
            fluid = inside(np.float32(level) - np.float32(0.2) * lateral**2 - self.y, 0.04) * self.lungs[side]
            self._replace(fluid, 1.0)
            self.free = self.free * (1 - fluid)
            self._mark("Pleural Effusion", fluid * self.air[side])

    def _devices(self, strength: float) -> None:
        device = np.zeros_like(self.x)
        if self.rng.random() < 0.5:  # pacemaker with a lead to the right ventricle
            centre = self.rng.uniform(0.52, 0.58), self.rng.uniform(-0.5, -0.46)
            case = ellipse(self.x, self.y, centre, (0.12, 0.1), power=4)
            lead = [centre, (0.3, -0.52), (-0.06, -0.42), (-0.1, 0.05), (0.22, 0.36)]
        else:  # port with a catheter to the superior vena cava
            centre = self.rng.uniform(-0.58, -0.52), self.rng.uniform(-0.5, -0.46)
            case = ellipse(self.x, self.y, centre, (0.1, 0.11))
            lead = [centre, (-0.3, -0.56), (-0.1, -0.5), (-0.1, -0.02)]
        device = np.maximum(case, stroke(self.x, self.y, lead, 0.022))
        self._mark("Support Devices", case)
        if self.rng.random() < 0.4:  # endotracheal tube
            device = np.maximum(device, stroke(self.x, self.y, [(0.0, -1.2), (0.01, -0.42)], 0.03))
        self.extra += np.float32(0.5 * strength) * device

    def _ribs(self) -> Array:
        """Bands that fall towards the side (posterior) and fainter ones that rise (anterior)."""
        width = self.anatomy.width
        cage = np.maximum(
            *(ellipse(self.x, self.y, (s * 0.4 * width, 0.06), (0.39 * width, 0.88), power=2.3) for s in (RIGHT, LEFT))
        )
        turn = np.float32(2 * np.pi / self.anatomy.rib_spacing)
        bend = self.depth * self.depth
        posterior = np.clip(np.cos(turn * (self.y + 0.12 * self.depth - 0.52 * bend)) - np.float32(0.1), 0, 1)
        anterior = np.clip(np.cos(turn * (self.y - 0.45 * self.depth + 0.1 * bend)) - np.float32(0.45), 0, 1)
        outer = np.clip((self.depth - np.float32(0.2)) * 5, 0, 1)
        return cage * (posterior + np.float32(0.4) * outer * anterior)

    def _bones(self) -> Array:
        spine = inside(self.depth - np.float32(0.075), 0.04) * (
            1 + np.float32(0.35) * np.clip(np.cos(self.y * np.float32(2 * np.pi / 0.13)), -0.5, 1)
        )
        inner, outer = self.anatomy.clavicle, self.anatomy.clavicle - 0.1
        clavicles = np.zeros_like(self.x)
        for side in (RIGHT, LEFT):
            curve = [(side * 0.08, inner), (side * 0.3, inner - 0.06), (side * 0.55, outer + 0.01), (side * 0.8, outer)]
            clavicles = np.maximum(clavicles, stroke(self.x, self.y, curve, 0.055, 0.02))
        bones = np.float32(0.07) * spine + np.float32(0.09) * clavicles
        return bones + np.float32(self.anatomy.rib_density) * self._ribs()

    def _compose(self) -> Array:
        half = np.interp(self.y, (-1.3, -0.86, -0.74, -0.6, -0.35, 1.3), (0.24, 0.27, 0.62, 0.86, 0.93, 0.9))
        body = inside(self.depth - half.astype(np.float32), 0.03)
        air = self.air[RIGHT] + self.air[LEFT]
        hila = sum((blob(self.x, self.y, (s * 0.2, -0.05), (0.07, 0.13)) for s in (RIGHT, LEFT)), np.zeros_like(air))
        vessels = texture(self.rng, self.x.shape, 1.6) * (0.015 + 0.045 * np.exp(-3.0 * self.depth))
        density = np.float32(0.58) + np.float32(0.1) * self.shadow + np.float32(0.03) * self._soft_tissue()
        density -= np.float32(0.4) * air * (1 - self.fill)
        density += air * (1 - self.free) * (1 - np.float32(0.8) * self.fill) * (vessels + np.float32(0.12) * hila)
        density -= np.float32(0.15) * self.free
        density += self._bones()
        density = density * body + self.extra
        trachea = stroke(self.x, self.y, [(0.0, -1.2), (0.0, -0.3)], 0.07, 0.03)
        bubble = ellipse(self.x, self.y, (0.38, self.anatomy.dome + 0.27), (0.12, 0.07), edge=0.05)
        density -= np.float32(0.07) * trachea + np.float32(0.1) * bubble
        noise = self.rng.standard_normal(density.shape, np.float32)
        return density + np.float32(self.rng.uniform(0.012, 0.022)) * noise

    def _soft_tissue(self) -> Array:
        return texture(self.rng, self.x.shape, 9) + (self.y > self.anatomy.dome)
