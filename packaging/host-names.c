/*
 * Part of the programs that scripts/dist makes, which have the C library inside.
 *
 * To look up a host name, that library loads modules of the system (/etc/nsswitch.conf), and with them the system's own
 * C library. If its version is another one, the program crashes. So the program looks up host names in /etc/hosts and
 * in DNS alone, which are built in.
 */
#include <nss.h>

__attribute__((constructor)) static void look_up_host_names_without_modules(void) {
    __nss_configure_lookup("hosts", "files dns");
}
