"""The kernels that run the loops of `adjsnn.equations.cpu` on a GPU: a thread takes one sample, forward or back.

Plain functions, as those loops are: `adjsnn.equations.link` binds them to each system.
"""

from adjsnn.equations.cpu.adjoint import Back, sample_back
from adjsnn.equations.cpu.march import Work, forward
from adjsnn.equations.cpu.steps import Room, Sums
from adjsnn.numerics.device import cuda


def work_of(works, k):
    """The room of thread k. That of all threads lies side by side, so that they read side by side; of sums, in rows."""
    step, sums = works.step, works.sums
    return Work(
        Room(step.slopes[:, :, k], step.states[:, :, k], step.bars[:, :, k], step.rows[:, :, k], step.w[:, :, k]),
        works.powers[:, :, k],
        works.parts[:, :, k],
        works.states[:, :, k],
        works.levels[:, :, k],
        Sums(sums.p[k], sums.q[k], sums.u[k]),
        works.w[:, k],
        works.wb[:, k],
    )


def forward_kernel(trial, record, samples, limit, works, begin, count):
    """Thread k runs sample begin + k from where it stands; as `adjsnn.equations.cpu.march.forward`."""
    k = cuda.grid(1)
    if k < count:
        forward(trial, record, samples, limit, work_of(works, k), begin + k, begin + k + 1)


def backward_kernel(trial, record, samples, cotangents, bars, works, backs, begin, count):
    """Thread k takes sample begin + k back; as `adjsnn.equations.cpu.adjoint.sample_back`, with row k of bars.p for its own."""
    k = cuda.grid(1)
    if k < count:
        back = Back(backs.stretch[:, :, k], backs.rows[:, :, k])
        sample_back(trial, record, samples, cotangents, bars, work_of(works, k), back, k, begin + k)
