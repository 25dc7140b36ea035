// SPDX-License-Identifier: Apache-2.0

// Package names is what the things are called that the operator makes of a Cluster, so
// that the operator, which makes them, and the command line, which looks for them, say
// the same.
//
//	Cluster my-pg in namespace shop
//	  StatefulSet  my-pg-postgresql             pods my-pg-postgresql-0, -1, …
//	  Service      my-pg-postgresql             the primary, whoever that is
//	  Service      my-pg-postgresql-replicas    the others
//	  Secret       my-pg-postgresql-superuser   username, password
//
// A name of a Cluster has at most v1alpha1.MaxClusterName characters, so that none of
// these is longer than the 63 of a label.
package names
