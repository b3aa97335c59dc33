#!/bin/sh
# PID 1 of the guest: makes it look like a host with cgroup v2 and an ordinary user's delegated subtree, runs the jobs
# of the job disk one after another, and hands back what they left.
/bin/busybox --install -s /bin
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
# The options systemd gives it.
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
ip link set lo up
hostname guest
for module in /modules/*.ko*; do insmod "$module"; done

mount -t squashfs -o ro /dev/nvme0n2 /project
tar xf /dev/nvme0n3 -C /job
chmod 755 /job

# As systemd lays it out: controllers on at the root, a node of the user's own with the session in a leaf below, since
# a node that has both processes and controllers for its children is refused.
echo '+cpu +memory +pids' > /sys/fs/cgroup/cgroup.subtree_control
delegated=/sys/fs/cgroup/delegated
mkdir -p /sys/fs/cgroup/root-session $delegated/session
echo '+cpu +memory +pids' > $delegated/cgroup.subtree_control
for node in $delegated $delegated/session; do
  chown mayfly-test:mayfly-test $node $node/cgroup.procs $node/cgroup.threads $node/cgroup.subtree_control
done
mkdir -p -m 700 /run/user/1000
chown -R mayfly-test:mayfly-test /home/mayfly-test /run/user/1000

for job in /job/*.sh; do
  name=$(basename "$job" .sh)
  export RESULTS=/results/$name
  mkdir -p "$RESULTS"
  echo "vm: guest: $name starts at $(cut -d' ' -f1 /proc/uptime) s"
  case $name in
    *root*) (
      echo 0 > /sys/fs/cgroup/root-session/cgroup.procs
      cd /project && exec sh "$job"
    ) < /dev/null ;;
    *user*) (
      chown mayfly-test:mayfly-test "$RESULTS"
      echo 0 > $delegated/session/cgroup.procs
      export XDG_RUNTIME_DIR=/run/user/1000
      cd /project && exec su -s /bin/sh mayfly-test -c "exec sh $job"
    ) < /dev/null ;;
  esac
  code=$?
  echo $code > "$RESULTS/exit"
  echo "vm: guest: $name ended with status $code at $(cut -d' ' -f1 /proc/uptime) s"
done

# The report: without it the host takes the run for failed, however QEMU ends.
tar cf /dev/nvme0n4 -C /results .
sync
poweroff -f
