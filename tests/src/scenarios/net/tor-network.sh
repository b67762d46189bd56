# A Tor network of one directory authority, which is a relay as well, and two relays, in one guest.
# Prints the line by which clients know the authority.
set -e
rm /etc/bulkhead/gateway
nft flush ruleset
mv /usr/sbin/nft /usr/sbin/no-nft
ip address add @FAR@/32 dev lo
ip address add @RELAYS@/32 dev lo
near=$(ip -4 -o address show | sed -n 's/.* vlan[0-9@a-z]* *inet \([0-9.]*\).*/\1/p' | head -n 1)
/tmp/@PROBE@ names @FAR@ @FAR@ $near > /tmp/names.log 2>&1 < /dev/null &

mkdir -p /tmp/n/auth/keys
cd /tmp/n
chmod 700 auth auth/keys
echo pass | tor-gencert --create-identity-key -m 12 -a @RELAYS@:7100 --passphrase-fd 0 \
    -i auth/keys/authority_identity_key -s auth/keys/authority_signing_key \
    -c auth/keys/authority_certificate > gencert.log 2>&1
# The relay's own key is made when it is asked for.
: > none
nobody=ffffffffffffffffffffffffffffffffffffffff
tor --list-fingerprint --orport 5100 --datadirectory /tmp/n/auth --nickname auth --defaults-torrc /dev/null \
    -f /tmp/n/none --dirauthority "x 127.0.0.1:1 $nobody" > fingerprint 2> fingerprint.log
fingerprint=$(sed -n 's/^auth //p' fingerprint | tr -d ' ')
identity=$(sed -n 's/^fingerprint //p' auth/keys/authority_certificate)
authority="DirAuthority auth orport=5100 no-v2 v3ident=$identity @RELAYS@:7100 $fingerprint"
test -n "$fingerprint" -a -n "$identity"

# Three are too few for circuits of the relays' own: those would be tried again and again.
echo "nameserver @FAR@" > resolv.conf
for relay in auth r1 r2; do
    case $relay in auth) port=5100 ;; r1) port=5101 ;; r2) port=5102 ;; esac
    cat > $relay.conf << END
TestingTorNetwork 1
$authority
ShutdownWaitLength 0
AssumeReachable 1
Nickname $relay
Address @RELAYS@
ORPort @RELAYS@:$port IPv4Only
SocksPort 0
ContactInfo test
DataDirectory /tmp/n/$relay
Log notice file /tmp/n/$relay.log
ExitRelay 1
ExitPolicy accept *:*
ExitPolicyRejectPrivate 0
ServerDNSResolvConfFile /tmp/n/resolv.conf
ServerDNSDetectHijacking 0
ServerDNSAllowBrokenConfig 1
__DisablePredictedCircuits 1
VanguardsLiteEnabled 0
END
done
cat >> auth.conf << END
DirPort @RELAYS@:7100 IPv4Only
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
AuthDirMaxServersPerAddr 0
V3AuthVotingInterval 20
V3AuthVoteDelay 2
V3AuthDistDelay 2
TestingV3AuthInitialVotingInterval 10
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
TestingAuthDirTimeToLearnReachability 0
TestingDirAuthVoteGuard *
TestingDirAuthVoteExit *
TestingMinExitFlagThreshold 0
END
for relay in auth r1 r2; do
    tor --defaults-torrc /dev/null -f $relay.conf > $relay.out 2>&1 < /dev/null &
done
echo "$authority"
