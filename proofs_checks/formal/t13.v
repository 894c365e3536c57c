(** T13. Newton-Kantorovich in radii form: if Y + Z r <= r and Z < 1, the ball of radius r around ybar holds exactly
    one solution of F(y) = y_s. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space banach t3 jacobian.
Open Scope R_scope.

(** The Newton-like operator T(y) = y - A (F(y) - y_s), with its contraction given by finite differences. *)
Theorem t13_operator (V : NormedModule R_AbsRing) (F A : V -> V) (y_s ybar : V) (r Y Z : R)
  (HV : complete V)
  (HA_plus : forall u v, A (u [+] v) = A u [+] A v)
  (HA_scal : forall a u, A (a [*] u) = a [*] A u)
  (HA_injective : forall u, A u = zero -> u = zero)
  (HY : norm (A (F ybar [-] y_s)) <= Y)
  (HZ : forall u v, norm (u [-] ybar) <= r -> norm (v [-] ybar) <= r ->
    norm ((u [-] v) [-] A (F u [-] F v)) <= Z * norm (u [-] v))
  (HYZ : Y + Z * r <= r)
  (HZ1 : 0 <= Z < 1) :
  exists y, norm (y [-] ybar) <= r /\ F y = y_s /\ forall z, norm (z [-] ybar) <= r -> F z = y_s -> z = y.
Proof.
  assert (Aminus : forall u v, A (u [-] v) = A u [-] A v).
  { intros u v; replace (u [-] v) with (u [+] (-1) [*] v) by vector.
    rewrite HA_plus, HA_scal; vector. }
  assert (Azero : A zero = zero).
  { replace (zero : V) with (0 [*] (zero : V)) at 1 by vector; rewrite HA_scal; vector. }
  set (T := fun y => y [-] A (F y [-] y_s)).
  destruct (t3_ball V T Z r ybar HV HZ1) as (y & Hr & Hy & Hu & _).
  - intros u v Bu Bv; unfold T.
    replace (u [-] A (F u [-] y_s) [-] (v [-] A (F v [-] y_s))) with ((u [-] v) [-] A (F u [-] F v)).
    + now apply HZ.
    + rewrite !Aminus; vector.
  - unfold T; replace (ybar [-] A (F ybar [-] y_s) [-] ybar) with (opp (A (F ybar [-] y_s))) by vector.
    rewrite norm_opp; lra.
  - exists y; split; [exact Hr|]; split.
    + assert (E : A (F y [-] y_s) = zero).
      { replace (A (F y [-] y_s)) with (y [-] T y) by (unfold T; vector); rewrite Hy; vector. }
      apply HA_injective in E.
      replace (F y) with ((F y [-] y_s) [+] y_s) by vector; rewrite E; vector.
    + intros z Bz Hz; apply Hu; [exact Bz|].
      unfold T; rewrite Hz.
      replace (y_s [-] y_s) with (zero : V) by vector; rewrite Azero; vector.
Qed.

(** The radii form as it is used: Z bounds ||I - A F'(y)|| over the ball. *)
Theorem t13_radii (V : NormedModule R_AbsRing) (ip : InnerProduct V) (F A : V -> V) (DF : V -> V -> V)
  (y_s ybar : V) (r Y Z : R)
  (HV : complete V)
  (HA : is_linear A)
  (HA_injective : forall u, A u = zero -> u = zero)
  (HDF : forall y, norm (y [-] ybar) <= r -> filterdiff F (locally y) (DF y))
  (HY : norm (A (F ybar [-] y_s)) <= Y)
  (HZ : forall y h, norm (y [-] ybar) <= r -> norm (h [-] A (DF y h)) <= Z * norm h)
  (HYZ : Y + Z * r <= r)
  (HZ1 : 0 <= Z < 1) :
  exists y, norm (y [-] ybar) <= r /\ F y = y_s /\ forall z, norm (z [-] ybar) <= r -> F z = y_s -> z = y.
Proof.
  destruct HA as [HA_plus HA_scal HA_norm] eqn:EA.
  apply (t13_operator V F A y_s ybar r Y Z); auto.
  assert (HL := jacobian_lipschitz (fun y => y [-] A (F y)) (fun y h => h [-] A (DF y h)) ybar r Z).
  intros u v Hu Hv.
  replace (u [-] v [-] A (F u [-] F v)) with ((u [-] A (F u)) [-] (v [-] A (F v))).
  - apply HL; auto.
    intros y Hy; apply (filterdiff_minus_fct (fun y => y) (fun y => A (F y)) (fun h => h) (fun h => A (DF y h))).
    + apply filterdiff_id.
    + apply (filterdiff_comp' F A y (DF y) A); [now apply HDF|apply filterdiff_linear; exact HA].
  - replace (A (F u [-] F v)) with (A (F u) [-] A (F v)); [vector|].
    replace (F u [-] F v) with (F u [+] (-1) [*] F v) by vector.
    rewrite HA_plus, HA_scal; vector.
Qed.

(** Known only up to r_s: y_s within r_s of ybar_s, ||A v|| <= a ||v||. *)
Theorem t13_inexact (V : NormedModule R_AbsRing) (F A : V -> V) (y_s ybar_s ybar : V) (r r_s a Y Z : R)
  (HV : complete V)
  (HA_plus : forall u v, A (u [+] v) = A u [+] A v)
  (HA_scal : forall a u, A (a [*] u) = a [*] A u)
  (HA_injective : forall u, A u = zero -> u = zero)
  (HA_norm : forall v, norm (A v) <= a * norm v)
  (Ha : 0 <= a)
  (Hy_s : norm (y_s [-] ybar_s) <= r_s)
  (HY : norm (A (F ybar [-] ybar_s)) <= Y)
  (HZ : forall u v, norm (u [-] ybar) <= r -> norm (v [-] ybar) <= r ->
    norm ((u [-] v) [-] A (F u [-] F v)) <= Z * norm (u [-] v))
  (HYZ : Y + a * r_s + Z * r <= r)
  (HZ1 : 0 <= Z < 1) :
  exists y, norm (y [-] ybar) <= r /\ F y = y_s /\ forall z, norm (z [-] ybar) <= r -> F z = y_s -> z = y.
Proof.
  apply (t13_operator V F A y_s ybar r (Y + a * r_s) Z); auto.
  replace (F ybar [-] y_s) with ((F ybar [-] ybar_s) [+] (-1) [*] (y_s [-] ybar_s)) by vector.
  rewrite HA_plus, HA_scal; apply Rle_trans with (1 := norm_triangle _ _).
  rewrite norm_scal_eq, Rabs_left by lra.
  assert (H := HA_norm (y_s [-] ybar_s)).
  assert (a * norm (y_s [-] ybar_s) <= a * r_s) by (apply Rmult_le_compat_l; assumption).
  lra.
Qed.
