"""Explicit Runge–Kutta methods as data: tableaus, embedded error estimates and continuous extensions."""

from dataclasses import dataclass

Coefficients = tuple[float, ...]


@dataclass(frozen=True)
class Tableau:
    """One explicit Runge–Kutta method for ẏ = f(t, y).

        k_i = f(t + c_i h, y + h Σ_{j<i} a_ij k_j)        y(t + h) ≈ y + h Σ_i b_i k_i
        y(t + σh) ≈ y + h Σ_i b_i(σ) k_i,                  0 ≤ σ ≤ 1

    Args:
        name: what `method=` calls it.
        order: order of the step.
        a: row i holds a_ij for j < i; row 0 is empty.
        b: weights of the step, one per stage.
        c: stage times in steps, c_i = Σ_j a_ij.
        dense: for each stage the coefficients of σ, σ², … in b_i(σ); there is no constant term and b_i(1) = b_i.
        dense_order: order of the continuous extension.
        b_error: b - b̂, weights of the embedded error estimate; None for methods without one.
        first_same_as_last: the last stage is f at the end of the step, so it can serve as the first stage of the next.
    """

    name: str
    order: int
    a: tuple[Coefficients, ...]
    b: Coefficients
    c: Coefficients
    dense: tuple[Coefficients, ...]
    dense_order: int
    b_error: Coefficients | None = None
    first_same_as_last: bool = False

    @property
    def stages(self) -> int:
        """Number of stages, the last one of a first-same-as-last method included."""
        return len(self.b)


EULER = Tableau(
    name="euler",
    order=1,
    a=((),),
    b=(1.0,),
    c=(0.0,),
    dense=((1.0,),),
    dense_order=1,
)

HEUN = Tableau(
    name="heun",
    order=2,
    a=((), (1.0,)),
    b=(1 / 2, 1 / 2),
    c=(0.0, 1.0),
    dense=((1.0, -1 / 2), (0.0, 1 / 2)),
    dense_order=2,
)

RK4 = Tableau(
    name="rk4",
    order=4,
    a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    c=(0.0, 1 / 2, 1 / 2, 1.0),
    dense=((1.0, -3 / 2, 2 / 3), (0.0, 1.0, -2 / 3), (0.0, 1.0, -2 / 3), (0.0, -1 / 2, 2 / 3)),
    dense_order=3,
)

_DOPRI5_B = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0)
_DOPRI5_B_HAT = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
_DOPRI5_D = (
    -12715105075 / 11282082432,
    0.0,
    87487479700 / 32700410799,
    -10690763975 / 1880347072,
    701980252875 / 199316789632,
    -1453857185 / 822651844,
    69997945 / 29380423,
)


def _hermite_with_correction(b: Coefficients, d: Coefficients) -> tuple[Coefficients, ...]:
    """Cubic Hermite polynomial between the step's ends plus σ²(1-σ)² Σ d_i k_i, as b_i(σ).

    With δ_first and δ_last one for the first and last stage, zero otherwise,
    b_i(σ) = σ b_i + σ(1-σ)[(δ_first - b_i) + σ(2b_i - δ_last - δ_first) + σ(1-σ) d_i].
    """
    dense = []
    for i, (b_i, d_i) in enumerate(zip(b, d, strict=True)):
        first, last = float(i == 0), float(i == len(b) - 1)
        turn = 2 * b_i - last - first
        dense.append((first, b_i - first + turn + d_i, -turn - 2 * d_i, d_i))
    return tuple(dense)


DOPRI5 = Tableau(  # Dormand & Prince 1980; continuous extension of Hairer, Nørsett & Wanner's code, order 4
    name="dopri5",
    order=5,
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b=_DOPRI5_B,
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    dense=_hermite_with_correction(_DOPRI5_B, _DOPRI5_D),
    dense_order=4,
    b_error=tuple(b - b_hat for b, b_hat in zip(_DOPRI5_B, _DOPRI5_B_HAT, strict=True)),
    first_same_as_last=True,
)

TSIT5 = Tableau(  # Tsitouras 2011, with the paper's continuous extension of order 4
    name="tsit5",
    order=5,
    a=(
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
    ),
    b=(0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774, 0.0),
    c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    dense=(
        (1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216),
        (0.0, 0.13169999999999998, -0.2234, 0.1017),
        (0.0, 3.9302962368947516, -5.941033872131505, 2.490627285651253),
        (0.0, -12.411077166933676, 30.33818863028232, -16.548102889244902),
        (0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928),
        (0.0, -27.896526289197286, 65.09189467479366, -34.87065786149661),
        (0.0, 1.5, -4.0, 2.5),
    ),
    dense_order=4,
    b_error=(
        -0.001780011052225771,
        -0.0008164344596567469,
        0.007880878010261995,
        -0.1447110071732629,
        0.5823571654525552,
        -0.45808210592918697,
        1 / 66,
    ),
    first_same_as_last=True,
)

TABLEAUS = {tableau.name: tableau for tableau in (EULER, HEUN, RK4, DOPRI5, TSIT5)}
