# An access point on the second of two radios in software, in a network of its own, with a server for
# addresses and one for a file. Run as root in the network domain, in the folder with its programs.
set -e
cd /tmp/radio
chmod +x hostapd iw
export LD_LIBRARY_PATH=/tmp/radio
/tmp/net-probe modules $(ls *.ko*)
for i in $(seq 50); do test -e /sys/class/net/wlan1/phy80211 && break; sleep 0.1; done
head -c 1000000 /dev/urandom > served
cat > hostapd.conf << END
interface=wlan1
driver=nl80211
ssid=@SSID@
hw_mode=g
channel=1
wpa=2
wpa_key_mgmt=WPA-PSK
rsn_pairwise=CCMP
wpa_passphrase=@PASSPHRASE@
bss=wlan1b
ssid2=P"@ODD@"
END
cat > inside.sh << END
until ip link show wlan1 > /dev/null 2>&1; do sleep 0.1; done
ip link set lo up
ip address add @SERVER@/32 dev lo
ip address add 192.0.2.1/24 dev wlan1
./hostapd hostapd.conf &
dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --user=root --port=0 \
    --interface=wlan1 --bind-dynamic --dhcp-range=192.0.2.100,192.0.2.150,2m \
    --dhcp-leasefile=/tmp/radio/leases --dhcp-authoritative &
/tmp/net-probe serve @PORT@ served &
wait
END
phy=$(cat /sys/class/net/wlan1/phy80211/name)
setsid unshare --net sh inside.sh > access-point.log 2>&1 < /dev/null &
inside=$!
# Until the network of its own is there.
while test "$(readlink /proc/$inside/ns/net)" = "$(readlink /proc/self/ns/net)"; do sleep 0.1; done
./iw phy $phy set netns $inside
for i in $(seq 100); do grep -q AP-ENABLED access-point.log && break; sleep 0.1; done
grep -q AP-ENABLED access-point.log || { cat access-point.log; exit 1; }
sha256sum < served
