"""Containers that serve many ports over TCP and UDP, and that ask others: two small programs for the perl of this machine."""

from images import pack_shell

# A server for each `tcp/PORT` or `udp/PORT`, which answers with just that. Bound before it says so; ends when it is asked to.
SERVE = r"""
$| = 1; $SIG{TERM} = sub { exit 0 };
for (@ARGV) {
    my ($kind, $port) = split "/";
    socket(my $own, 2, $kind eq "tcp" ? 1 : 2, 0) or die "socket: $!";
    bind($own, pack("Sna4x8", 2, $port, "\0\0\0\0")) or die "bind $_: $!";
    if ($kind eq "tcp") { listen($own, 16) or die "listen $_: $!" }
    next if fork;
    if ($kind eq "tcp") { while (accept(my $other, $own)) { syswrite $other, $_; close $other } }
    else { while (my $from = recv($own, my $asked, 64, 0)) { send($own, $_, 0, $from) } }
    exit 1;
}
print "serving\n"; sleep 1 while 1;
"""

# What answers at each `tcp/PORT` or `udp/PORT` of the machine, which from inside is the gateway.
ASK = r"""
$| = 1;
open(my $routes, "/proc/net/route") or die "routes: $!";
my ($gateway) = map { (split)[2] } grep { (split)[1] eq "00000000" } <$routes>;
for (@ARGV) {
    my ($kind, $port) = split "/";
    my $answer = "";
    for (1 .. 20) {
        socket(my $own, 2, $kind eq "tcp" ? 1 : 2, 0) or die "socket: $!";
        connect($own, pack("Sna4x8", 2, $port, pack("L", hex $gateway))) or next;
        if ($kind eq "udp") { send($own, "?", 0) }
        vec(my $waiting = "", fileno($own), 1) = 1;
        select($waiting, undef, undef, 1) and sysread($own, $answer, 64);
        last if $answer;
    }
    print "$_ leads to $answer\n";
}
"""


def pack_ports(path):
    """Writes the image of both."""
    return pack_shell(path, {"perl": "bin/perl"})


def serving(*ports, mappings, name="app"):
    """A container that serves these ports."""
    command = {"entryPoint": ["/bin/perl", "-e", SERVE], "command": list(ports)}
    return {"name": name, "image": "ports:1", "memory": 64, "portMappings": mappings, **command}


def asking(*ports):
    """A container that asks at these ports of the machine, says what answers, and ends."""
    return {"name": "asks", "image": "ports:1", "memory": 64, "entryPoint": ["/bin/perl", "-e", ASK], "command": list(ports)}


def ends(text):
    """The ends of `80-90`."""
    first, last = text.split("-")
    return int(first), int(last)


def expected(binding):
    """Lines of ASK for each port of a range's binding."""
    (first, last), (host, host_last) = ends(binding["containerPortRange"]), ends(binding["hostPortRange"])
    assert last - first == host_last - host, binding
    return [(f"{binding['protocol']}/{host + step}", f"{binding['protocol']}/{first + step}") for step in range(last - first + 1)]
