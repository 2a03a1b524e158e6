"""scikit-learn's handwritten digits, told by when each pixel spikes: 65 inputs, 100 and 10 LIF neurons, default weights.

python examples/digits_classifier.py            half a minute, on one core
"""

import copy
import sys
import time

import torch
from sklearn.datasets import load_digits

import adjsnn


def main(seed: int = 0, iterations: int = 1500, quiet: bool = False) -> float:
    """Train, and return the share of held-out pictures that are told right."""
    torch.manual_seed(seed)
    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    order, pixels = torch.randperm(len(labels)), images.float() / 16.0
    x = adjsnn.SpikeTrains.latency(1.0 - pixels, 20.0, bias=0.0, skip=pixels < 0.1)  # bright ones early, dark ones never
    held_out, training = order[:360], order[360:]

    net = adjsnn.LIFNetwork(65, layers=(100, 10))
    start = adjsnn.start_from_data(net, x[training[:256]], share=(0.5, 0.9), t_end=40.0)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations)
    best, lowest, mean = net.state_dict(), float("inf"), 10.0
    clocks = time.perf_counter, time.process_time
    began = [clock() for clock in clocks]
    for _ in range(iterations):
        chosen = training[torch.randint(len(training), (64,))]
        sol = adjsnn.solve(net, x[chosen], t_end=40.0)
        loss = adjsnn.losses.first_spike_cross_entropy(sol, labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        adjsnn.remedies.wake(net, sol, labels[chosen], rise=schedule.get_last_lr()[0])  # beside the gradient
        schedule.step()
        mean = 0.95 * mean + 0.05 * loss.item()
        if mean < lowest:  # an output layer may fall silent for good, so what was best is kept
            best, lowest = copy.deepcopy(net.state_dict()), mean
    net.load_state_dict(best)
    answers = adjsnn.solve(net, x[held_out], t_end=40.0).first_spike_times().argmin(1)
    accuracy = float((answers == labels[held_out]).double().mean())
    if not quiet:
        wall, cpu = (clock() - then for clock, then in zip(clocks, began, strict=True))
        print(start, f"held out: {accuracy:.1%} right; {wall:.0f} s, {cpu:.0f} s of processors", sep="\n")
    return accuracy


if __name__ == "__main__":
    torch.set_num_threads(1)  # between small solves a second thread of torch's only waits, on a core that others may want
    main(*(int(x) for x in sys.argv[1:]))
