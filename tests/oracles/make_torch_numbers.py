"""PyTorch's answers to `torch_cases`; run as a script, it writes them to torch_numbers.npz.

cd tests && python -m oracles.make_torch_numbers
"""

from pathlib import Path

import numpy as np

from oracles.torch_cases import CASES, answer_shapes, pack, problem

STORED = Path(__file__).with_name("torch_numbers.npz")


def answers(case, given, bits=None) -> dict:
    """Outputs, final carries and gradients of the module, by the names of `answer_shapes`."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    torch.set_num_threads(1)  # the arrays are tiny, and tests run side by side
    bits = bits or case.bits

    def leaf(array):
        tensor = torch.from_numpy(np.asarray(array).astype(f"float{bits}"))
        return tensor.requires_grad_()

    module = _module(torch, case).to(getattr(torch, f"float{bits}"))
    module.load_state_dict({k: leaf(v).detach() for k, v in given.weights.items()})
    xs, carry = leaf(given.xs), [leaf(part) for part in given.carry]
    packed = pack_padded_sequence(
        xs, torch.from_numpy(given.lengths), batch_first=True, enforce_sorted=False
    )
    out, final = module(packed, tuple(carry) if len(carry) == 2 else carry[0])
    final = final if len(carry) == 2 else (final,)
    ys, _ = pad_packed_sequence(out, batch_first=True, total_length=case.T)
    loss = (ys * leaf(given.d_ys).detach()).sum()
    for part, cotangent in zip(final, given.d_carry, strict=True):
        loss = loss + (part * leaf(cotangent).detach()).sum()
    loss.backward()
    weights = dict(module.named_parameters())
    tensors = [ys, *final, xs.grad, *(part.grad for part in carry)]
    tensors += [weights[name].grad for name in given.weights]
    return dict(zip(answer_shapes(case), (t.detach().numpy() for t in tensors), strict=True))


def _module(torch, case):
    kind, options = {
        "tanh": (torch.nn.RNN, {"nonlinearity": "tanh"}),
        "relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
        "gru": (torch.nn.GRU, {}),
        "lstm": (torch.nn.LSTM, {}),
    }[case.kind]
    return kind(
        case.I,
        case.H,
        case.layers,
        bias=case.bias,
        bidirectional=case.directions == 2,
        batch_first=True,
        **options,
    )


if __name__ == "__main__":
    import torch

    vectors = {str(case): pack(answers(case, problem(case))) for case in CASES}
    np.savez_compressed(STORED, torch_version=np.array(torch.__version__), **vectors)
    print(f"{STORED.name}: {len(vectors)} cases, {STORED.stat().st_size // 1000} kB")
