# What runs inside the sandbox, around a judged answer: in python3 behind rights.py, in WebAssembly behind pyodide-rights.py,
# which define hide() and confine(). The job comes on descriptor 3: one line of limits (main, below), then the code. The
# process first takes its own rights away, then
#   program   runs the answer as a script on its standard input
#   serve     loads the answer and calls what it is told to, one JSON line each way on descriptor 3
#   check     runs the data set's test code, which is trusted; the answer's names are stand-ins whose calls go out on
#             descriptor 3 to a `serve` process, so that the answer never shares a process with what is expected of it
#   probe     says what holds here
# What is imported here is paid for by every test: json waits until it is needed.
import builtins
import os
import sys


# ---- values on the wire: data alone, never code ----------------------------------------------------------------------

def encode(value, refer):
    """A value as JSON; what is no plain data becomes a reference that `refer` hands out."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        value = int(value)
        return value if -(1 << 53) < value < 1 << 53 else {'int': hex(value)}
    if isinstance(value, float):
        value = float(value)
        return value if value - value == 0 else {'float': repr(value)}
    if isinstance(value, complex):
        return {'complex': [repr(value.real), repr(value.imag)]}
    if isinstance(value, (bytes, bytearray)):
        return {'bytes': bytes(value).hex()}
    if isinstance(value, list):
        return [encode(entry, refer) for entry in value]
    if isinstance(value, range):
        return {'range': [value.start, value.stop, value.step]}
    if isinstance(value, dict):
        return {'dict': [[encode(key, refer), encode(entry, refer)] for key, entry in value.items()]}
    for kind, name in ((tuple, 'tuple'), (set, 'set'), (frozenset, 'frozenset')):
        if isinstance(value, kind):
            return {name: [encode(entry, refer) for entry in value]}
    if hasattr(type(value), '__next__') or type(value).__name__ in ('dict_keys', 'dict_values', 'dict_items'):
        return {'iter': [encode(entry, refer) for entry in value]}
    return {'ref': refer(value)}


def decode(wire, dereference):
    if isinstance(wire, list):
        return [decode(entry, dereference) for entry in wire]
    if not isinstance(wire, dict):
        return wire
    ((kind, body),) = wire.items()
    if kind == 'int':
        return int(body, 16)
    if kind == 'float':
        return float(body)
    if kind == 'complex':
        return complex(float(body[0]), float(body[1]))
    if kind == 'bytes':
        return bytes.fromhex(body)
    if kind == 'range':
        return range(*body)
    if kind == 'ref':
        return dereference(body)
    if kind == 'dict':
        return {decode(key, dereference): decode(entry, dereference) for key, entry in body}
    entries = [decode(entry, dereference) for entry in body]
    return {'tuple': tuple, 'set': set, 'frozenset': frozenset, 'iter': iter}[kind](entries)


class Channel:
    def __init__(self, reader):
        import json
        self.json, self.reader = json, reader

    def receive(self):
        line = self.reader.readline()
        if not line:
            os._exit(0)
        return self.json.loads(line)

    def send(self, message):
        data = self.json.dumps(message).encode() + b'\n'
        while data:
            data = data[os.write(3, data):]


# ---- the answer ------------------------------------------------------------------------------------------------------

TYPING = 'Any Callable Deque DefaultDict Dict FrozenSet Generator Iterable Iterator List Optional Sequence Set Tuple Type Union'
PRELUDE = {
    'typing': TYPING,
    'collections': 'Counter OrderedDict defaultdict deque namedtuple',
    'itertools': 'accumulate chain combinations combinations_with_replacement count cycle groupby islice permutations product zip_longest',
    'functools': 'cache cmp_to_key lru_cache partial reduce',
    'heapq': 'heapify heappop heappush heappushpop heapreplace nlargest nsmallest',
    'bisect': 'bisect_left bisect_right insort',
    'math': 'ceil comb factorial floor gcd inf isqrt lcm sqrt',
    'copy': 'deepcopy',
    'sys': 'stdin stdout',
}
MODULES = 'bisect collections copy datetime functools heapq itertools json math operator os random re string sys time'.split()


def names_in(code):
    for constant in code.co_consts:
        if type(constant) is type(code):
            yield from names_in(constant)
    yield from code.co_names


def prelude(code, namespace):
    """The imports that contest sites and the data sets' own graders give every answer; only those that it names."""
    names = set(names_in(code))
    for module in names.intersection(MODULES):
        namespace[module] = __import__(module)
    for module, members in PRELUDE.items():
        for name in names.intersection(members.split()):
            namespace[name] = getattr(__import__(module), name)
    if 'random' in names:
        __import__('random').seed(0)


def load(text, name):
    """Runs the answer as the module `name`; returns what it defines."""
    module = type(sys)(name)
    sys.modules[name] = module
    builtins.exit = builtins.quit = sys.exit
    sys.setrecursionlimit(50_000)
    code = compile(text, 'answer.py', 'exec')
    prelude(code, module.__dict__)
    given = dict(module.__dict__)
    exec(code, module.__dict__)
    return {key: value for key, value in module.__dict__.items() if key not in given or given[key] is not value}


def described(error):
    return {'type': type(error).__name__, 'message': str(error)[:300]}


def serve(text, channel):
    objects = []

    def refer(value):
        objects.append(value)
        return len(objects) - 1

    try:
        namespace = load(text, 'answer')
    except BaseException as error:
        channel.send({'error': described(error)})
        return
    instance = None

    def target(request):
        nonlocal instance
        if 'ref' in request:
            return objects[request['ref']]
        name = request['call']
        if name in namespace:
            return namespace[name]
        if instance is None:
            if 'Solution' not in namespace:
                raise NameError(f"the answer does not define {name!r}")
            instance = namespace['Solution']()
        return getattr(instance, name)

    channel.send({'names': [name for name, value in namespace.items() if callable(value)]})
    while True:
        request = channel.receive()
        try:
            if 'attribute' in request:
                channel.send({'value': encode(getattr(target(request), request['attribute']), refer)})
                continue
            if 'json' in request:  # arguments as the data set writes them: 2.0 stays a float, 10**30 stays exact
                args = [channel.json.loads(text) for text in request['json']]
                channel.send({'value': encode(target(request)(*args), refer)})
                continue
            args = [decode(entry, objects.__getitem__) for entry in request['args']]
            kwargs = {key: decode(entry, objects.__getitem__) for key, entry in request.get('kwargs', {}).items()}
            value = encode(target(request)(*args, **kwargs), refer)
            # In-place functions, which return None: what became of the lists, dicts and sets that were handed in. From
            # others nothing comes back, or `assert f(x) == sorted(x)` would hold for one that empties x.
            after = [encode(arg, refer) if value is None and isinstance(arg, (list, dict, set)) else None for arg in args]
            changed = {i: wire for i, wire in enumerate(after) if wire is not None and wire != request['args'][i]}
            channel.send({'value': value, 'changed': changed} if changed else {'value': value})
        except BaseException as error:
            channel.send({'error': described(error)})


# ---- the data set's test code ----------------------------------------------------------------------------------------

class AnswerError(Exception):
    """An exception of the answer whose class the tests cannot know."""


def reply_of(channel):
    reply = channel.receive()
    if 'error' not in reply:
        return reply
    kind = getattr(builtins, str(reply['error']['type']), None)
    message = str(reply['error']['message'])
    # An exception that ends an iteration would end the loop of the tests, and `all(map(…))` would hold.
    unsafe = UnicodeError, StopIteration, StopAsyncIteration
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, unsafe):
        raise kind(message)
    raise AnswerError(f"{reply['error']['type']}: {message}")


def check(text, entry_point, channel):
    calls = 0

    def ask(request):
        channel.send(request)
        return reply_of(channel)

    class Remote:
        """Stands for something in the answer's process. Has no __eq__: the answer must not decide what equals it."""

        def __init__(self, place):
            object.__setattr__(self, 'place', place)

        def __call__(self, *args, **kwargs):
            nonlocal calls
            calls += 1
            wires = [encode(arg, refer) for arg in args]
            reply = ask({**self.place, 'args': wires, 'kwargs': {key: encode(arg, refer) for key, arg in kwargs.items()}})
            for i, wire in reply.get('changed', {}).items():
                old, new = args[int(i)], decode(wire, by_ref)
                if isinstance(old, list) and isinstance(new, list):
                    old[:] = new
                elif isinstance(old, (dict, set)) and isinstance(new, type(old)):
                    old.clear()
                    old.update(new)
            return decode(reply['value'], by_ref)

        def __bool__(self):
            return True

        def __getattr__(self, name):
            return decode(ask({**self.place, 'attribute': name})['value'], by_ref)

    def special(name):
        return lambda self, *args: self.__getattr__(name)(*args)

    # Not __contains__: what `in` says is found here, by iterating.
    for name in '__len__ __getitem__ __setitem__ __iter__ __str__'.split():
        setattr(Remote, name, special(name))

    def by_ref(place):
        return Remote({'ref': place})

    def refer(value):
        if isinstance(value, Remote) and 'ref' in value.place:
            return value.place['ref']
        raise TypeError(f"a test handed {type(value).__name__} to the answer; only plain data crosses to it")

    try:
        code = compile(text, 'tests.py', 'exec')
    except (SyntaxError, ValueError) as error:
        return channel.send({'broken': f'the tests are no Python: {error}'})
    try:
        names = reply_of(channel)['names']  # what the answer's process says when it has loaded
        # An answer's own `abs` or `math` must not stand in the tests: they would compute with it. Nor its `__builtins__`.
        own = {*dir(builtins), *MODULES}
        stand_ins = {name: Remote({'call': name}) for name in names if not name.startswith('__') and name not in own}
        solution = sys.modules['solution'] = type(sys)('solution')
        solution.__dict__.update(stand_ins)
        namespace = {**stand_ins, '__name__': '__main__'}
        for module in {*names_in(code)}.intersection(MODULES):
            namespace[module] = __import__(module)
        if 'random' in namespace:
            namespace['random'].seed(0)
        exec(code, namespace)
        if entry_point:
            namespace['check'](Remote({'call': entry_point}))
        elif calls == 0:
            for name, test in list(namespace.items()):
                if name.startswith('test') and not isinstance(test, Remote) and callable(test):
                    test()
    except BaseException as error:
        return channel.send({'failed': described(error)})
    channel.send({'passed': True} if calls > 0 else {'broken': 'the tests never call the answer'})


def main():
    hide()
    reader = os.fdopen(3, 'rb', closefd=False)
    mode, entry_point, readable, *numbers = reader.readline().decode().rstrip('\n').split('\t')
    names = 'memory_bytes', 'cpu_seconds', 'file_bytes', 'processes', 'code_bytes'
    limits = dict(zip(names, map(int, numbers)))
    text = reader.read(limits['code_bytes']).decode()
    held = confine(limits, readable.split(':') if readable else [])
    os.write(3, b'\n')  # from here on the clock runs
    if mode == 'program':
        os.close(3)
        load(text, '__main__')
    elif mode == 'serve':
        serve(text, Channel(reader))
    elif mode == 'check':
        check(text, entry_point, Channel(reader))
    else:
        Channel(reader).send({'held': held, 'version': sys.version.split()[0]})
